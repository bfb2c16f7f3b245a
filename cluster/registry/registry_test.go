package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// nodesLog is doppel.nodes in memory.
type nodesLog struct {
	mu      sync.Mutex
	entries []entry
	more    chan struct{}
}

type entry struct {
	id string
	n  *doppelv1.NodeRecord
}

func newNodesLog() *nodesLog { return &nodesLog{more: make(chan struct{})} }

func (l *nodesLog) add(e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	close(l.more)
	l.more = make(chan struct{})
}

func (l *nodesLog) PutNode(_ context.Context, n *doppelv1.NodeRecord) error {
	l.add(entry{n.GetId(), n})
	return nil
}

func (l *nodesLog) RemoveNode(_ context.Context, id string, incarnation uint64) error {
	if n := l.newest(id); n.GetIncarnation() == incarnation {
		l.add(entry{id, nil})
	}
	return nil
}

func (l *nodesLog) newest(id string) (n *doppelv1.NodeRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.id == id {
			n = e.n
		}
	}
	return n
}

func (l *nodesLog) FollowNodes(ctx context.Context, ready func(), fn func(id string, n *doppelv1.NodeRecord)) error {
	at, was := 0, len(l.entries)
	if was == 0 {
		ready()
	}
	for {
		l.mu.Lock()
		entries, more := l.entries[at:], l.more
		l.mu.Unlock()
		for _, e := range entries {
			fn(e.id, e.n)
			if at++; at == was {
				ready()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// fixture is one node of a cluster whose group the test plays.
type fixture struct {
	*Registry
	log     *nodesLog
	table   atomic.Pointer[placement.Table]
	fresh   atomic.Bool
	heard   atomic.Bool // all nodes are heard of
	adopted chan string
	hold    chan struct{} // adoptions wait for it
}

func (f *fixture) members(ids ...string) { f.table.Store(tableOf(ids...)) }

func tableOf(ids ...string) *placement.Table {
	t := &placement.Table{}
	for _, id := range ids {
		t.Members = append(t.Members, placement.Member{ID: id})
	}
	return t
}

func start(t *testing.T, id string, log *nodesLog) *fixture {
	t.Helper()
	f := &fixture{log: log, adopted: make(chan string, 10), hold: make(chan struct{})}
	f.fresh.Store(true)
	var err error
	f.Registry, err = New(Config{
		Record: &doppelv1.NodeRecord{Id: id, Incarnation: 1}, Log: log, Table: f.table.Load, Fresh: f.fresh.Load,
		Adopt: func(ctx context.Context, n *doppelv1.NodeRecord) error {
			select {
			case <-f.hold:
			case <-ctx.Done():
				return ctx.Err()
			}
			f.adopted <- n.GetId()
			return nil
		},
		Heard: func(string) (at time.Time) {
			if f.heard.Load() {
				at = time.Now()
			}
			return at
		},
		Grace: 20 * time.Millisecond, Doubt: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestTheFirstNodeAdoptsTheDead(t *testing.T) {
	log := newNodesLog()
	for _, id := range []string{"a", "b", "c"} {
		log.add(entry{id, &doppelv1.NodeRecord{Id: id, Incarnation: 1}})
	}
	a, b := start(t, "a", log), start(t, "b", log)
	for _, f := range []*fixture{a, b} {
		close(f.hold)
		f.members("a", "b")
	}
	select {
	case id := <-a.adopted:
		if id != "c" {
			t.Errorf("adopted %s", id)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody adopts c")
	}
	for deadline := time.Now().Add(10 * time.Second); log.newest("c") != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the record of c stands after its adoption")
		}
	}
	select {
	case id := <-b.adopted:
		t.Errorf("b, which is not the first, adopted %s", id)
	default:
	}
}

func TestAnAdoptionEndsWhenItsNodeIsBack(t *testing.T) {
	log := newNodesLog()
	log.add(entry{"a", &doppelv1.NodeRecord{Id: "a", Incarnation: 1}})
	log.add(entry{"b", &doppelv1.NodeRecord{Id: "b", Incarnation: 1}})
	a := start(t, "a", log)
	a.members("a")
	adopting := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.adopting) > 0
	}
	await(t, "a adopts b", adopting)
	a.members("a", "b")
	await(t, "the adoption ends", func() bool { return !adopting() })
	if log.newest("b") == nil {
		t.Error("the record of a node that is back was removed")
	}
}

func TestWhoIsHeardOfIsNotTakenForDead(t *testing.T) {
	log := newNodesLog()
	log.add(entry{"b", &doppelv1.NodeRecord{Id: "b", Incarnation: 1}})
	a := start(t, "a", log)
	close(a.hold)
	a.heard.Store(true)
	a.members("a") // Kafka was away, and a is back first
	select {
	case id := <-a.adopted:
		t.Fatalf("adopted %s", id)
	case <-time.After(500 * time.Millisecond):
	}
	a.heard.Store(false)
	select {
	case <-a.adopted:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody adopts b")
	}
}

func TestWithoutASessionNobodyIsAdopted(t *testing.T) {
	log := newNodesLog()
	log.add(entry{"b", &doppelv1.NodeRecord{Id: "b", Incarnation: 1}})
	a := start(t, "a", log)
	close(a.hold)
	a.fresh.Store(false)
	a.members("a")
	select {
	case id := <-a.adopted:
		t.Fatalf("adopted %s", id)
	case <-time.After(500 * time.Millisecond):
	}
	a.fresh.Store(true)
	if id := <-a.adopted; id != "b" {
		t.Errorf("adopted %s", id)
	}
}

func TestPermit(t *testing.T) {
	log := newNodesLog()
	a := start(t, "a", log)
	permitted := make(chan error, 1)
	ask := func() { go func() { permitted <- a.Permit(t.Context()) }() }
	refused := func(why string) {
		t.Helper()
		select {
		case err := <-permitted:
			t.Fatalf("permitted (%v): %s", err, why)
		case <-time.After(200 * time.Millisecond):
		}
	}
	ask()
	refused("there is no table")
	a.members("b")
	refused("it is not in the group")
	a.fresh.Store(false)
	a.members("a", "b")
	refused("its session is not in force")
	a.fresh.Store(true)
	if err := <-permitted; err != nil {
		t.Fatal(err)
	}
	if log.newest("a") == nil {
		t.Error("connected without a record")
	}

	// Taken for dead and adopted: the record is written again before it connects again.
	log.add(entry{"a", nil})
	await(t, "a sees that its record is gone", a.Adopted)
	if a.Adopted() {
		t.Error("adopted twice")
	}
	ask()
	if err := <-permitted; err != nil {
		t.Fatal(err)
	}
	if log.newest("a") == nil {
		t.Error("connected again without a record")
	}

	if err := a.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := a.Permit(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("permitted after it left: %v", err)
	}
}

func TestGathered(t *testing.T) {
	var table atomic.Pointer[placement.Table]
	r, err := New(Config{
		Record: &doppelv1.NodeRecord{Id: "a", Incarnation: 1}, Log: newNodesLog(), Table: table.Load,
		Fresh:  func() bool { return false }, // nobody is adopted
		Adopt:  func(context.Context, *doppelv1.NodeRecord) error { return nil },
		Logger: slog.New(slog.DiscardHandler), Grace: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want bool, when string) {
		t.Helper()
		if got := r.Gathered(); got != want {
			t.Errorf("gathered %t, want %t: %s", got, want, when)
		}
	}
	check(false, "no table")
	table.Store(tableOf("a"))
	check(false, "the records are not read")
	r.caughtUp()
	check(true, "nobody is recorded")
	r.enter("b", &doppelv1.NodeRecord{Id: "b"})
	check(false, "b is recorded and not in the group")
	table.Store(tableOf("a", "b"))
	check(true, "b has joined")
	table.Store(tableOf("a"))
	r.look(t.Context(), time.Now(), nil)
	check(false, "b has just left")
	r.cfg.Grace = 0
	check(true, "b left long ago")
	r.enter("c", &doppelv1.NodeRecord{Id: "c"})
	check(false, "c was not missed yet")
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTheNextOneStandsIn(t *testing.T) {
	table := &placement.Table{Members: []placement.Member{{ID: "a"}, {ID: "b"}}}
	for id, want := range map[string][]bool{"a": {false, true, true, false, true}, "b": {false, false, false, true, false}} {
		r := &Registry{cfg: Config{Record: &doppelv1.NodeRecord{Id: id}}}
		for i, due := range []time.Duration{-1, 0, standIn - 1, standIn, 2 * standIn} {
			if got := r.turn(table, due); got != want[i] {
				t.Errorf("%s, due for %v: %v", id, due, got)
			}
		}
	}
}
