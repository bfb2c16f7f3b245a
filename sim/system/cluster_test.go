package system_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// clusterPartitions is enough for every node to have some, and few: each costs a record to move.
const clusterPartitions = 8

// cluster is nodes that share real services.
type cluster struct {
	t        *testing.T
	services nodetest.Services
	settings []string
	root     string // of MQTT topics
	prefix   string // of Kafka topics
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, services: nodetest.RealServices(t), root: nodetest.Unique("root"), prefix: nodetest.Unique("test") + "."}
	c.settings = []string{
		"--mqtt", c.services.MQTT, "--kafka", c.services.Kafka, "--questdb", c.services.QuestDB, "--group", nodetest.Unique("group"),
		"--topic-root", c.root, "--topic-prefix", c.prefix, "--partitions", strconv.Itoa(clusterPartitions),
	}
	return c
}

// launch starts a node; ready waits for it.
func (c *cluster) launch(id string) *process {
	c.t.Helper()
	// An MQTT client id is everybody's at the broker.
	name := nodetest.Unique(id)
	p := launch(c.t, append(append([]string{}, c.settings...), "--node-id", name, "--data-dir", c.t.TempDir())...)
	p.name, p.broker, p.kafka, p.root, p.prefix = name, c.services.MQTT, c.services.Kafka, c.root, c.prefix
	return p
}

// doors are the addresses to give to a client that may ask any of nodes.
func doors(nodes ...*process) string {
	var all []string
	for _, p := range nodes {
		all = append(all, p.GRPC)
	}
	return strings.Join(all, ",")
}

// clusterStatus is what `doppel cluster status -o json` shows.
type clusterStatus struct {
	Nodes      []memberStatus
	Partitions []struct {
		ID                     int
		State, Owner, MovingTo string
		Epoch                  string
	}
}

// memberStatus is a node in it.
type memberStatus struct {
	ID, State, Address string
	Partitions         int
}

func (p *process) status() (s clusterStatus) {
	p.t.Helper()
	text := ok(p.t, binary, "cluster", "status", "--addr", p.GRPC, "-o", "json")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		p.t.Fatalf("cluster status: %v: %s", err, text)
	}
	return s
}

// settled says why the cluster is not what it should be: nodes in the given states and no others, every
// partition served, no move left, and nobody idle but who is drained.
func (s *clusterStatus) settled(want map[*process]string) error {
	if len(s.Nodes) != len(want) {
		return fmt.Errorf("%d nodes, want %d", len(s.Nodes), len(want))
	}
	owns := make(map[string]int)
	for i, p := range s.Partitions {
		if p.ID != i || p.State != "serving" || p.Owner == "" || p.MovingTo != "" {
			return fmt.Errorf("partition %d: %+v", i, p)
		}
		owns[p.Owner]++
	}
	if len(s.Partitions) != clusterPartitions {
		return fmt.Errorf("%d partitions, want %d", len(s.Partitions), clusterPartitions)
	}
	serve := 0
	for _, state := range want {
		if state == "serving" {
			serve++
		}
	}
	for p, state := range want {
		i := slices.IndexFunc(s.Nodes, func(n memberStatus) bool { return n.ID == p.name })
		switch {
		case i < 0:
			return fmt.Errorf("%s is missing", p.name)
		case s.Nodes[i].State != state || s.Nodes[i].Address == "" || s.Nodes[i].Partitions != owns[p.name]:
			return fmt.Errorf("node %+v owns %d, want it %s", s.Nodes[i], owns[p.name], state)
		case state == "serving" && owns[p.name] < clusterPartitions/serve, state != "serving" && owns[p.name] > 0:
			return fmt.Errorf("%s is %s and owns %d", p.name, state, owns[p.name])
		}
	}
	return nil
}

// awaitNodes waits until the cluster is settled, in the eyes of p.
func (p *process) awaitNodes(what string, want map[*process]string) clusterStatus {
	p.t.Helper()
	var s clusterStatus
	var err error
	began := time.Now()
	if !pollEvery(100*time.Millisecond, func() bool { s = p.status(); err = s.settled(want); return err == nil }) {
		p.t.Fatalf("%s: %v\n%s", what, err, ok(p.t, binary, "cluster", "status", "--addr", p.GRPC))
	}
	p.t.Logf("%s: settled after %v", what, time.Since(began).Round(time.Millisecond))
	return s
}

// background is a doppel that runs beside the test.
type background struct {
	t    *testing.T
	cmd  *exec.Cmd
	says lockedText // both its outputs
	done chan struct{}
}

func launchBeside(t *testing.T, args ...string) *background {
	t.Helper()
	b := &background{t: t, cmd: exec.Command(binary, args...), done: make(chan struct{})}
	b.cmd.Env, b.cmd.Stdout, b.cmd.Stderr = clean(), &b.says, &b.says
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(b.done); _ = b.cmd.Wait() }() // its exit code says it all
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-b.done
		if t.Failed() {
			text := b.says.String()
			t.Logf("doppel %v:\n%s", args, text[max(0, len(text)-4000):])
		}
	})
	return b
}

// interrupt sends what Ctrl-C does, and gives the exit code.
func (b *background) interrupt(within time.Duration) int {
	b.t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-b.done:
	case <-time.After(within):
		b.t.Fatalf("%v does not end:\n%s", b.cmd.Args, b.says.String())
	}
	return b.cmd.ProcessState.ExitCode()
}

// event is a line of a watch.
type event struct {
	Snapshot, Transition, Changed *struct {
		ID, Device, Rule, State string
		Reported                map[string]any
	}
	SnapshotDone *struct{}
	Gap          *struct{ Reason string }
}

// events are the lines a watch has written, without its remarks.
func (b *background) events() []event {
	b.t.Helper()
	var all []event
	for line := range strings.Lines(b.says.String()) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var ev event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			b.t.Fatalf("watch: %v: %s", err, line)
		}
		all = append(all, ev)
	}
	return all
}
