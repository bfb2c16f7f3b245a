package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// Target is what is tortured.
type Target string

// The targets: a node that is everything in one process; one on real servers; and the latter while its
// MQTT broker is killed, which loses what the broker loses.
const (
	Embedded Target = "embedded"
	Real     Target = "real"
	Broker   Target = "broker"
	// ClusterOf3 is three nodes on Kafka and Mosquitto.
	ClusterOf3 Target = "cluster"
	// Pauses is the same with faults far apart, to see how long a device waits for each.
	Pauses Target = "pauses"
	// Blackout is the same with Kafka unreachable for a while, and nothing else.
	Blackout Target = "blackout"
)

// Menu are the faults of a target.
func (t Target) Menu() []Choice {
	switch t {
	case Embedded:
		return EmbeddedMenu()
	case Broker:
		return BrokerMenu()
	case ClusterOf3:
		return ClusterMenu()
	case Pauses:
		return PausesMenu()
	case Blackout:
		return BlackoutMenu(time.Minute)
	default:
		return RealMenu()
	}
}

// Pace is how close the faults of a target follow each other.
func (t Target) Pace() Pace {
	switch t {
	case ClusterOf3:
		return loose
	case Pauses:
		return sparse
	default:
		return dense
	}
}

// Clustered says whether a target has several nodes.
func (t Target) Clustered() bool { return t == ClusterOf3 || t == Pauses || t == Blackout }

// Rig is a running system under test. Close ends all of it.
type Rig struct {
	Dir     string
	Devices string // URL of the broker as devices reach it
	GRPC    string
	HTTP    string
	Kafka   string // as readers reach it
	QuestDB string // URL; empty: none
	Network string // what a cluster's is made of

	nodes     []*node
	processes map[Subject]*process
	knowing   sync.Mutex // of processes while they are being made
	links     map[Subject]*link
	cables    map[Subject]*cable // of a cluster
	wiring    wiring             // of a cluster
	guard     *guard

	mu       sync.Mutex // guards happened
	happened []happening
}

// link is a proxy under one fault at a time.
type link struct {
	*Proxy

	fault sync.Mutex
}

// NewRig starts a target in a directory below dir, with the doppel command binary. root is the root of the
// repository.
func NewRig(ctx context.Context, target Target, root, dir, binary string) (*Rig, error) {
	r, err := emptyRig(dir)
	if err != nil {
		return nil, err
	}
	ports := device.NewRandom(seedOfPorts(), 0)
	args := []string{"run", "--data-dir", "data", "--node-id", "tortured", "--addresses-file", addressesFile, "--grpc-addr", "", "--http-addr", ""}
	grpc, err1 := freePort(ctx, ports)
	http, err2 := freePort(ctx, ports)
	if err := errors.Join(err1, err2); err != nil {
		r.Close()
		return nil, err
	}
	r.GRPC, r.HTTP = local(grpc), local(http)
	args[len(args)-3], args[len(args)-1] = r.GRPC, r.HTTP
	var more []string
	if target == Embedded {
		more, err = r.embedded(ctx, ports)
	} else {
		more, err = r.real(ctx, root, ports)
	}
	if err == nil {
		err = r.startNode(ctx, binary, append(args, more...))
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// emptyRig has nothing yet but its guard.
func emptyRig(dir string) (*Rig, error) {
	whole, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r := &Rig{Dir: whole, processes: make(map[Subject]*process), links: make(map[Subject]*link)}
	if r.guard, err = startGuard(whole); err != nil {
		return nil, err
	}
	return r, nil
}

// seedOfPorts is new each time: nothing depends on them, and two rigs must not draw the same.
func seedOfPorts() uint64 { return rand.Uint64() }

func (r *Rig) startNode(ctx context.Context, binary string, args []string) error {
	n, err := r.addNode(Node, binary, r.GRPC, r.HTTP, args)
	if err != nil {
		return err
	}
	if err := n.run(ctx); err != nil {
		return err
	}
	if !r.Ready(ctx) {
		return fmt.Errorf("node is not ready: %s", r.LogTail())
	}
	return nil
}

// know enters a process, while proxies may already ask for it.
func (r *Rig) know(s Subject, p *process) {
	r.knowing.Lock()
	defer r.knowing.Unlock()
	r.processes[s] = p
}

// pid is that of a process; 0: it does not run.
func (r *Rig) pid(s Subject) int {
	r.knowing.Lock()
	p := r.processes[s]
	r.knowing.Unlock()
	if p == nil {
		return 0
	}
	return p.pid()
}

// addNode prepares a node; it is not started.
func (r *Rig) addNode(s Subject, binary, grpc, http string, args []string) (*node, error) {
	dir, err := r.folder(s)
	if err != nil {
		return nil, err
	}
	n := newNode(s, dir, binary, grpc, http, args)
	r.nodes = append(r.nodes, n)
	r.know(s, &n.process)
	return n, nil
}

// Ready waits until every node serves.
func (r *Rig) Ready(ctx context.Context) bool {
	return await(ctx, startLimit, func() bool {
		for _, n := range r.nodes {
			if !n.ready(ctx) {
				return false
			}
		}
		return true
	})
}

func (r *Rig) folder(s Subject) (string, error) {
	dir := filepath.Join(r.Dir, string(s))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("rig: %w", err)
	}
	return dir, nil
}

// proxy adds a link to an address.
func (r *Rig) proxy(ctx context.Context, s Subject, upstream string) (*Proxy, error) {
	p, err := NewProxy(ctx, upstream, s == KafkaLink)
	if err != nil {
		return nil, err
	}
	r.links[s] = &link{Proxy: p}
	return p, nil
}

// LogTail is the end of what the node said.
func (r *Rig) LogTail() string {
	text, err := os.ReadFile(r.nodes[0].logFile())
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(text[max(0, len(text)-4000):]), "?")
}

// Close ends every process and link.
func (r *Rig) Close() {
	for _, n := range r.nodes {
		n.close()
	}
	for _, p := range r.processes {
		_ = p.kill() // the guard tries again
	}
	for _, l := range r.links {
		l.Close()
	}
	if r.wiring != nil {
		r.wiring.close()
	}
	r.guard.close()
}
