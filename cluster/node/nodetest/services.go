package nodetest

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node"
)

// Environment variables that say where the real services are; deploy/services sets them for `make test`.
const (
	envKafka     = "DOPPEL_TEST_KAFKA"
	envQuestDB   = "DOPPEL_TEST_QUESTDB"
	envQuestDBPG = "DOPPEL_TEST_QUESTDB_PG"
	envMQTT      = "DOPPEL_TEST_MQTT"
	envHiveMQ    = "DOPPEL_TEST_HIVEMQ"
)

// Services are the real ones.
type Services struct {
	Kafka     string // HOST:PORT
	QuestDB   string // http://HOST:PORT
	QuestDBPG string // HOST:PORT
	MQTT      string // mqtt://HOST:PORT, Mosquitto
	HiveMQ    string // the same; empty where it is not started
}

// RealServices says where they are. A test that needs them fails without.
func RealServices(t testing.TB) Services {
	t.Helper()
	get := func(name string) string {
		v := os.Getenv(name)
		if v == "" {
			t.Fatalf("%s is not set, and this test needs the real services: run make test", name)
		}
		return v
	}
	return Services{Kafka: get(envKafka), QuestDB: get(envQuestDB), QuestDBPG: get(envQuestDBPG), MQTT: get(envMQTT), HiveMQ: os.Getenv(envHiveMQ)}
}

// Embedded configures a node with broker and log in its process.
func Embedded(t testing.TB) node.Config {
	t.Helper()
	cfg := defaults()
	cfg.DataDir = t.TempDir()
	cfg.NodeID = Unique("node")
	cfg.Partitions = 4
	cfg.GRPCAddr, cfg.HTTPAddr, cfg.MQTTAddr, cfg.KafkaAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

// Real configures a node on the real services, with topics no other test uses. The tables of QuestDB
// are everyone's: use Unique ids there.
func Real(t testing.TB) node.Config {
	t.Helper()
	s := RealServices(t)
	cfg := Embedded(t)
	cfg.MQTT, cfg.Kafka, cfg.QuestDB = []string{s.MQTT}, []string{s.Kafka}, s.QuestDB
	cfg.NodeAddr = "127.0.0.1:0"
	cfg.Group = Unique("group")
	cfg.MQTTRoot = Unique("root")
	cfg.TopicPrefix = Unique("test") + "."
	return cfg
}

var uniques atomic.Uint64

// Unique makes a name that no other test and no earlier run uses.
func Unique(prefix string) string {
	return fmt.Sprintf("%s-%x-%x-%d", prefix, time.Now().UnixNano()/1e6, os.Getpid(), uniques.Add(1))
}

// Broker is the URL of the broker that the node's devices use.
func (n *Node) Broker() string {
	if len(n.Config.MQTT) > 0 {
		return n.Config.MQTT[0]
	}
	return "mqtt://" + n.Addresses.MQTT
}

// Kafka is the address of the node's log.
func (n *Node) Kafka() string {
	if len(n.Config.Kafka) > 0 {
		return n.Config.Kafka[0]
	}
	return n.Addresses.Kafka
}
