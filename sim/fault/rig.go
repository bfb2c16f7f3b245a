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
)

// Menu are the faults of a target.
func (t Target) Menu() []Choice {
	switch t {
	case Embedded:
		return EmbeddedMenu()
	case Broker:
		return BrokerMenu()
	default:
		return RealMenu()
	}
}

// Rig is a running system under test. Close ends all of it.
type Rig struct {
	Dir     string
	Devices string // URL of the broker as devices reach it
	GRPC    string
	HTTP    string
	Kafka   string // as readers reach it
	QuestDB string // URL; empty: none

	node      *node
	processes map[Subject]*process
	links     map[Subject]*link
	guard     *guard
}

// link is a proxy under one fault at a time.
type link struct {
	*Proxy

	fault sync.Mutex
}

// NewRig starts a target in a directory below dir, with the doppel command binary. root is the root of the
// repository.
func NewRig(ctx context.Context, target Target, root, dir, binary string) (*Rig, error) {
	whole, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r := &Rig{Dir: whole, processes: make(map[Subject]*process), links: make(map[Subject]*link)}
	if r.guard, err = startGuard(whole); err != nil {
		return nil, err
	}
	// Ports need no seed: nothing depends on them, and two rigs must not draw the same.
	ports := device.NewRandom(rand.Uint64(), 0)
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

func (r *Rig) startNode(ctx context.Context, binary string, args []string) error {
	dir, err := r.folder(Node)
	if err != nil {
		return err
	}
	r.node = newNode(dir, binary, r.HTTP, args)
	r.processes[Node] = &r.node.process
	if err := r.node.run(ctx); err != nil {
		return err
	}
	if !r.Ready(ctx) {
		return fmt.Errorf("node is not ready: %s", r.LogTail())
	}
	return nil
}

// Ready waits until the node serves.
func (r *Rig) Ready(ctx context.Context) bool {
	return await(ctx, startLimit, func() bool { return r.node.ready(ctx) })
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
	text, err := os.ReadFile(r.node.logFile())
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(text[max(0, len(text)-4000):]), "?")
}

// Close ends every process and link.
func (r *Rig) Close() {
	if r.node != nil {
		r.node.close()
	}
	for _, p := range r.processes {
		_ = p.kill() // the guard tries again
	}
	for _, l := range r.links {
		l.Close()
	}
	r.guard.close()
}
