package peers

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// lan carries heartbeats between the Peers of one test; who is cut neither sends nor hears.
type lan struct {
	mu    sync.Mutex
	nodes map[string]func(from string, m proto.Message)
	cut   map[string]bool
}

type port struct {
	lan     *lan
	address string
}

func (p port) Tell(address, _ string, m proto.Message) error {
	p.lan.mu.Lock()
	fn := p.lan.nodes[address]
	cut := p.lan.cut[address] || p.lan.cut[p.address]
	p.lan.mu.Unlock()
	if fn != nil && !cut {
		fn(p.address, proto.Clone(m))
	}
	return nil
}

func (p port) Handle(_ string, fn func(from string, m proto.Message)) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	p.lan.nodes[p.address] = fn
}

func (l *lan) setCut(address string, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[address] = cut
}

// start runs n nodes that know each other; stuck[i] makes the gateway of node i clear nothing.
func start(t *testing.T, n int) (nodes []*Peers, net *lan, stuck []*atomic.Bool) {
	t.Helper()
	net = &lan{nodes: map[string]func(string, proto.Message){}, cut: map[string]bool{}}
	names := []string{"a", "b", "c", "d"}[:n]
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for i, name := range names {
		stop := new(atomic.Bool)
		stuck = append(stuck, stop)
		p, err := New(Config{
			Node: name, Incarnation: uint64(i + 1), Wire: port{net, name}, Every: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
			Clear: func(ctx context.Context) error {
				for stop.Load() && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				return ctx.Err()
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range names {
			p.Node(other, &doppelv1.NodeRecord{Id: other, Address: other})
		}
		p.Known()
		nodes = append(nodes, p)
	}
	for _, p := range nodes {
		wg.Go(func() { _ = p.Run(t.Context()) })
	}
	return nodes, net, stuck
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAMarkIsClearedByEveryGateway(t *testing.T) {
	nodes, net, stuck := start(t, 3)
	a := nodes[0]
	mark := a.Mark()
	eventually(t, "a mark is cleared while all is well", func() bool { return a.Cleared() >= mark })
	eventually(t, "settled while all is well", a.Settled)

	for name, fault := range map[string]struct{ begin, end func() }{
		"another gateway holds messages": {func() { stuck[1].Store(true) }, func() { stuck[1].Store(false) }},
		"the own gateway holds messages": {func() { stuck[0].Store(true) }, func() { stuck[0].Store(false) }},
		"another node is cut off":        {func() { net.setCut("c", true) }, func() { net.setCut("c", false) }},
	} {
		fault.begin()
		time.Sleep(20 * time.Millisecond) // what was on its way when it began
		mark := a.Mark()
		eventually(t, name+": unsettled", func() bool { return !a.Settled() })
		if a.Cleared() >= mark {
			t.Errorf("%s: the mark was cleared", name)
		}
		fault.end()
		eventually(t, name+" no more: cleared", func() bool { return a.Cleared() >= mark })
		eventually(t, name+" no more: settled", a.Settled)
	}
}

func TestADeadGatewayClearsNothingUntilItsRecordIsGone(t *testing.T) {
	nodes, net, _ := start(t, 3)
	a := nodes[0]
	mark := a.Mark()
	eventually(t, "cleared", func() bool { return a.Cleared() >= mark })
	net.setCut("c", true)
	time.Sleep(20 * time.Millisecond)
	mark = a.Mark()
	eventually(t, "unsettled", func() bool { return !a.Settled() })
	a.Node("c", nil)
	eventually(t, "cleared without it", func() bool { return a.Cleared() >= mark })
	eventually(t, "settled without it", a.Settled)
}

func TestNothingIsClearedBeforeTheGatewaysAreKnown(t *testing.T) {
	p, err := New(Config{Node: "a", Incarnation: 1, Wire: port{&lan{nodes: map[string]func(string, proto.Message){}}, "a"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p.Beat()
	others, own := p.seen()
	p.cleared(others, own)
	if got := p.Cleared(); got != 0 || p.Settled() {
		t.Errorf("cleared %d, settled %v before doppel.nodes was read", got, p.Settled())
	}
	p.Known()
	if got := p.Cleared(); got != own {
		t.Errorf("cleared %d of %d", got, own)
	}
}

func TestARestartedGatewayHasClearedNothing(t *testing.T) {
	p, err := New(Config{Node: "a", Incarnation: 7, Wire: port{&lan{nodes: map[string]func(string, proto.Message){}}, "a"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p.Node("b", &doppelv1.NodeRecord{Id: "b", Address: "b"})
	p.Known()
	for range 5 {
		p.Beat()
	}
	_, own := p.seen()
	p.cleared(nil, own)
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 3, Seq: 1, ClearedIncarnation: 6, ClearedSeq: 5}, now)
	if got := p.Cleared(); got != 0 {
		t.Errorf("cleared %d by what was said to an earlier incarnation of this node", got)
	}
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 3, Seq: 2, ClearedIncarnation: 7, ClearedSeq: 5}, now)
	if got := p.Cleared(); got != 5 {
		t.Errorf("cleared %d, want 5", got)
	}
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 4, Seq: 1}, now)
	if got := p.Cleared(); got != 0 {
		t.Errorf("cleared %d by a gateway that began anew", got)
	}
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 3, Seq: 3, ClearedIncarnation: 7, ClearedSeq: 5}, now)
	if got := p.Cleared(); got != 0 {
		t.Errorf("cleared %d by a heartbeat of an earlier incarnation", got)
	}
}

func TestTheServerIsWhoHasTheNewestEpoch(t *testing.T) {
	nodes, _, _ := start(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	b.Served(4, 10, true)
	eventually(t, "a knows that b serves", func() bool {
		id, address, epoch, ok := a.Server(4)
		return ok && id == "b" && address == "b" && epoch == 10
	})
	c.Served(4, 12, true) // b does not know yet that it is fenced
	eventually(t, "a knows that c serves", func() bool { id, _, _, _ := a.Server(4); return id == "c" })
	a.Served(4, 15, true)
	if id, address, _, ok := a.Server(4); !ok || id != "a" || address != "" {
		t.Errorf("server %q at %q, want this node", id, address)
	}
	a.Served(4, 15, false)
	b.Served(4, 10, false)
	c.Served(4, 12, false)
	eventually(t, "nobody serves", func() bool { _, _, _, ok := a.Server(4); return !ok })
}

// TestMet: a node may take messages once the others know of its record, which nobody says whose heartbeat
// was never heard. It does not need their gateways for that, which may be waiting for the same.
func TestMet(t *testing.T) {
	now := time.Now()
	p, err := New(Config{
		Node: "a", Incarnation: 7, Wire: port{&lan{nodes: map[string]func(string, proto.Message){}}, "a"},
		Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	met := func(want bool, when string) {
		t.Helper()
		if got := p.Met([]string{"b"}, time.Second); got != want {
			t.Errorf("met %v, want %v: %s", got, want, when)
		}
	}
	met(false, "b has no record yet")
	p.Node("b", &doppelv1.NodeRecord{Id: "b", Address: "b"})
	met(false, "b was never heard of")
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 1, Seq: 1}, now)
	met(true, "b speaks to us")
	p.Node("a", nil)
	met(false, "our record was removed")
	p.receive(&doppelv1.Heartbeat{Node: "b", Incarnation: 1, Seq: 2}, now)
	met(true, "b speaks to us again")
	p.Node("a", nil)
	now = now.Add(2 * time.Second)
	met(true, "b has fallen silent")
}
