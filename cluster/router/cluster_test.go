package router_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/remote"
	"github.com/doppel-iot/doppel/cluster/router"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// member is a node of a cluster on one log, with what its hosts really do.
type member struct {
	*node
	wire *remote.Remote
}

// table is where every member believes partitions to be.
type table struct {
	mu     sync.Mutex
	owners []*member
}

func (w *table) owner(p int32) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owners[p]
}

func (w *table) set(p int32, m *member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners[p] = m
}

func startMember(t *testing.T, log faulty, name string, where *table) *member {
	t.Helper()
	m := &member{wire: startRemote(t)}
	m.node = open(t, log, func(c *host.Config) {
		c.Node = name
		holdLong(c)
	})
	m.router = router.New(router.Config{
		Owners: m.host, Partitions: partitions, Ingest: m.client.Ingest(), Wire: m.wire,
		Route: func(p int32) router.Route {
			at := where.owner(p)
			return router.Route{Local: at == m, Address: at.wire.Address()}
		},
	})
	m.wire.Handle("peers", func(string, proto.Message) {})
	m.stop = sync.OnceFunc(func() {
		for p := range int32(partitions) {
			if err := m.host.Release(context.Background(), p); err != nil {
				t.Error(err)
			}
		}
		m.router.Close()
		if err := m.client.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// open is how many messages wait for their release.
func (s *sender) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// beat tells the members of each other that they are alive, until ctx ends.
func beat(ctx context.Context, members ...*member) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, from := range members {
			for _, to := range members {
				if from != to {
					_ = from.wire.Tell(to.wire.Address(), "peers", &doppelv1.Heartbeat{}) // again soon
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// TestMovesUnderTraffic sends the messages of a fleet to both of two nodes while partitions move
// between them, in order or by surprise, and routes follow late. The twins must be what they are on
// one node that nothing happens to.
func TestMovesUnderTraffic(t *testing.T) {
	msgs := fleetOf(40, 250)
	want := undisturbed(t, msgs)
	log := openFaulty(t)
	where := &table{owners: make([]*member, partitions)}
	a, b := startMember(t, log, "n1", where), startMember(t, log, "n2", where)
	for p := range int32(partitions) {
		at := a
		if p%2 == 1 {
			at = b
		}
		where.set(p, at)
		at.host.Own(p)
	}
	eventually(t, "all partitions are served", func() bool {
		mine, _ := a.host.Restored()
		others, _ := b.host.Restored()
		return mine+others == partitions
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go beat(ctx, a, b)

	moves, r := 0, rand.New(rand.NewPCG(1, 2))
	move := func(p int32, to *member) {
		from := where.owner(p)
		if r.IntN(2) == 0 {
			to.host.Own(p) // the other is fenced, and told later
			from.host.Drop(p)
		} else {
			if err := from.host.Release(ctx, p); err != nil {
				t.Error(err)
			}
			to.host.Own(p)
		}
		where.set(p, to)
		moves++
	}
	senders := []*sender{newSender(a.node), newSender(b.node)}
	for i, chunk := range slices.Collect(slices.Chunk(msgs, 50)) {
		senders[i%2].send(t, slices.Clone(chunk)...)
		if i%7 == 0 { // once more through the other door
			senders[1-i%2].send(t, slices.Clone(chunk)...)
		}
		eventually(t, "the doors have room", func() bool { return senders[0].open()+senders[1].open() < 300 })
		if i%20 == 19 {
			p := r.Int32N(partitions)
			to := a
			if where.owner(p) == a {
				to = b
			}
			move(p, to)
		}
	}
	for _, s := range senders {
		s.settle(t)
	}
	forwarded, received := a.router.Stats().Forwarded()+b.router.Stats().Forwarded(), a.router.Stats().Received()+b.router.Stats().Received()
	t.Logf("%d moves; %d forwarded, %d received; hops of n1 %v, of n2 %v; slow path of n1 %v, of n2 %v", moves, forwarded, received,
		hopCounts(a.router), hopCounts(b.router), slowCounts(a.router), slowCounts(b.router))
	if hopCounts(a.router)["released"] == 0 || hopCounts(b.router)["released"] == 0 || moves == 0 {
		t.Error("nothing hopped, or nothing moved")
	}
	for p := range int32(partitions) {
		if where.owner(p) == b {
			move(p, a)
		}
	}
	eventually(t, "one node serves all", func() bool { s, _ := a.host.Restored(); return s == partitions })
	eventually(t, "the twins are those of an undisturbed node", func() bool { return cmp.Equal(want, contents(t, a.node)) })
	b.stop()
	a.stop()
	n := start(t, log, holdLong)
	if diff := cmp.Diff(want, contents(t, n)); diff != "" {
		t.Errorf("twins after a restart (-want +got):\n%s", diff)
	}
}
