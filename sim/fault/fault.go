package fault

import (
	"fmt"
	"time"
)

// Subject is what a fault happens to: a process or a link between two.
type Subject string

// The processes, and the links that lead through a Proxy.
const (
	Node      Subject = "node"
	Kafka     Subject = "kafka"
	QuestDB   Subject = "questdb"
	Mosquitto Subject = "mosquitto"
	// Cluster is all nodes of one, and Tester this process as they see it.
	Cluster Subject = "cluster"
	Tester  Subject = "tester"

	DeviceLink  Subject = "devices-broker"
	BrokerLink  Subject = "node-broker"
	KafkaLink   Subject = "node-kafka"
	QuestDBLink Subject = "node-questdb"
)

// Kind is what happens to it.
type Kind string

// What happens to processes, to links, and to produce requests on the way to Kafka.
const (
	Kill      Kind = "kill -9"
	Terminate Kind = "SIGTERM"
	Pause     Kind = "SIGSTOP"

	Cut       Kind = "cut"        // connections reset, new ones refused
	Stall     Kind = "stall"      // nothing passes, nothing breaks
	StallUp   Kind = "stall up"   // nothing reaches the server
	StallDown Kind = "stall down" // nothing comes back from it

	LossUp    Kind = "loss up" // some of what goes to the server is lost
	LossDown  Kind = "loss down"
	DelayUp   Kind = "delay up" // what goes to the server is slow
	DelayDown Kind = "delay down"

	// What happens to a cluster.
	Rolling Kind = "rolling restart" // its nodes end on SIGTERM and start again, one after another
	Scale   Kind = "scale to one"    // all but one leave, and come back later
	Silence Kind = "no Kafka"        // it is unreachable for all nodes

	Unanswered Kind = "produce unanswered" // the whole request arrives, its answer does not
	Torn       Kind = "produce torn"       // half of the request arrives
)

// Fault is one crash point.
type Fault struct {
	At      time.Duration // since the load began
	Subject Subject
	Kind    Kind
	// For is how long a process stays away before it is started again or continued, and how long a link
	// stays as it is.
	For time.Duration
	// Requests is how many produce requests are hit.
	Requests int
}

// String is the fault as a line of the schedule.
func (f Fault) String() string {
	s := fmt.Sprintf("%7.3fs  %s: %s", f.At.Seconds(), f.Subject, f.Kind)
	if f.Requests > 0 {
		return fmt.Sprintf("%s, %d times", s, f.Requests)
	}
	return fmt.Sprintf("%s for %.3fs", s, f.For.Seconds())
}
