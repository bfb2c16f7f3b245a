package handover

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// cluster is what the movers of one test share: who serves what, by epochs as a log would give them.
type cluster struct {
	mu      sync.Mutex
	epoch   uint64
	movers  map[string]*Mover
	inboxes map[string]func(from string, m proto.Message)
	cut     map[string]bool
	serves  map[string]map[int32]uint64
	warmed  map[string]bool // node/partition
	trouble []string
}

func newCluster() *cluster {
	return &cluster{
		movers: map[string]*Mover{}, inboxes: map[string]func(string, proto.Message){}, cut: map[string]bool{},
		serves: map[string]map[int32]uint64{}, warmed: map[string]bool{},
	}
}

func (c *cluster) changed() {
	for _, m := range c.movers {
		m.Changed()
	}
}

// server is the node with the newest epoch of p.
func (c *cluster) server(p int32) (id string, epoch uint64) {
	for node, parts := range c.serves {
		if e, ok := parts[p]; ok && e >= epoch {
			id, epoch = node, e
		}
	}
	return id, epoch
}

// member is a node: its host, its peers and its wire.
type member struct {
	*cluster
	id    string
	fresh atomic.Bool
	// hang makes Release wait for ever.
	hang atomic.Bool
}

func (m *member) Own(p int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if server, _ := m.server(p); server != "" && server != m.id && !m.cut[server] && !m.warmed[fmt.Sprint(m.id, p)] {
		m.trouble = append(m.trouble, fmt.Sprintf("%s claims %d, which %s serves, without having read it", m.id, p, server))
	}
	m.epoch++
	m.serves[m.id][p] = m.epoch
	m.changed()
}

func (m *member) Warm(ctx context.Context, p int32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warmed[fmt.Sprint(m.id, p)] = true
	return ctx.Err()
}

func (m *member) Release(_ context.Context, p int32) error {
	for m.hang.Load() {
		time.Sleep(time.Millisecond)
	}
	m.Drop(p)
	return nil
}

func (m *member) Drop(p int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.serves[m.id], p)
	m.changed()
}

func (m *member) Serves(p int32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.serves[m.id][p]
	return ok
}

func (m *member) Server(p int32) (id, address string, epoch uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, epoch = m.server(p)
	return id, id, epoch, id != ""
}

func (m *member) Heard(id string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[id] || m.cut[m.id] {
		return time.Now().Add(-time.Hour)
	}
	return time.Now()
}

func (m *member) Tell(address, _ string, msg proto.Message) error {
	m.mu.Lock()
	fn := m.inboxes[address]
	if m.cut[m.id] || m.cut[address] {
		fn = nil
	}
	m.mu.Unlock()
	if fn != nil {
		fn(m.id, proto.Clone(msg))
	}
	return nil
}

func (m *member) Handle(_ string, fn func(from string, msg proto.Message)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inboxes[m.id] = fn
}

func (c *cluster) join(t *testing.T, id string, partitions int32) *member {
	t.Helper()
	m := &member{cluster: c, id: id}
	m.fresh.Store(true)
	mover, err := New(Config{
		Node: id, Partitions: partitions, Host: m, Peers: m, Wire: m, Fresh: m.fresh.Load, Logger: slog.New(slog.DiscardHandler),
		Silence: 50 * time.Millisecond, Patience: 300 * time.Millisecond, Unasked: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.movers[id], c.serves[id] = mover, map[int32]uint64{}
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); _ = mover.Run(t.Context()) }()
	t.Cleanup(func() { m.hang.Store(false); <-done })
	return m
}

// table says that partitions belong to nodes in turn.
func (c *cluster) table(generation int64, partitions int32, nodes ...string) {
	t := &placement.Table{Generation: generation}
	for _, id := range nodes {
		t.Members = append(t.Members, placement.Member{ID: id, Capacity: 1})
	}
	for p := range partitions {
		t.Owners = append(t.Owners, p%int32(len(nodes)))
	}
	for _, m := range c.movers {
		m.Table(t)
	}
}

func (c *cluster) awaitServing(t *testing.T, want map[int32]string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		got, ok := map[int32]string{}, true
		for p, node := range want {
			got[p], _ = c.server(p)
			ok = ok && got[p] == node
		}
		for node, parts := range c.serves {
			for p := range parts {
				ok = ok && want[p] == node
			}
		}
		trouble := c.trouble
		c.mu.Unlock()
		if len(trouble) > 0 {
			t.Fatal(trouble)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("partitions are served by %v, want %v", got, want)
		}
	}
}

func TestJoinAndLeave(t *testing.T) {
	c := newCluster()
	c.join(t, "a", 6)
	c.table(1, 6, "a")
	c.awaitServing(t, map[int32]string{0: "a", 1: "a", 2: "a", 3: "a", 4: "a", 5: "a"})
	c.join(t, "b", 6)
	c.table(2, 6, "a", "b")
	c.awaitServing(t, map[int32]string{0: "a", 1: "b", 2: "a", 3: "b", 4: "a", 5: "b"})
	c.table(3, 6, "b")
	c.awaitServing(t, map[int32]string{0: "b", 1: "b", 2: "b", 3: "b", 4: "b", 5: "b"})
}

func TestADeadOwnerIsNotWaitedFor(t *testing.T) {
	c := newCluster()
	a := c.join(t, "a", 2)
	b := c.join(t, "b", 2)
	c.table(1, 2, "a")
	c.awaitServing(t, map[int32]string{0: "a", 1: "a"})
	a.fresh.Store(false)
	c.mu.Lock()
	c.cut["a"] = true
	c.mu.Unlock()
	c.table(2, 2, "b")
	want := map[int32]string{0: "b", 1: "b"}
	c.awaitServing(t, want) // and a, when it hears of it, drops what it had
	if !b.Serves(0) {
		t.Error("b does not serve")
	}
}

func TestAnOwnerThatDoesNotLetGoIsOvertaken(t *testing.T) {
	c := newCluster()
	a := c.join(t, "a", 1)
	c.table(1, 1, "a")
	c.awaitServing(t, map[int32]string{0: "a"})
	c.join(t, "b", 1)
	a.hang.Store(true)
	c.table(2, 1, "b")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		server, _ := c.server(0)
		c.mu.Unlock()
		if server == "b" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("b waits for ever")
		}
	}
	a.hang.Store(false)
	c.awaitServing(t, map[int32]string{0: "b"})
}

func TestWithoutASessionNothingIsClaimed(t *testing.T) {
	c := newCluster()
	a := c.join(t, "a", 1)
	a.fresh.Store(false)
	c.table(1, 1, "a")
	mover := c.movers["a"]
	if mover.Assigned(0) {
		t.Error("assigned without a session")
	}
	time.Sleep(200 * time.Millisecond) // several rounds
	if a.Serves(0) {
		t.Error("claimed without a session")
	}
	a.fresh.Store(true)
	c.awaitServing(t, map[int32]string{0: "a"})
	if !mover.Assigned(0) {
		t.Error("not assigned")
	}
}

func TestWhatNobodyAsksForIsLetGo(t *testing.T) {
	c := newCluster()
	c.join(t, "a", 1)
	c.table(1, 1, "a")
	c.awaitServing(t, map[int32]string{0: "a"})
	c.table(2, 1, "nobody")
	c.awaitServing(t, map[int32]string{})
}

// slowPicture is a node whose picture of who serves what follows its host a moment late: a call of Server
// still says that a dead node does, and right behind it this node's own epoch is in the picture.
type slowPicture struct {
	member
	owned, shown atomic.Bool
	drops        atomic.Int64
}

func (s *slowPicture) Own(int32)         { s.owned.Store(true) }
func (s *slowPicture) Drop(int32)        { s.drops.Add(1) }
func (s *slowPicture) Serves(int32) bool { return s.shown.Load() }

func (s *slowPicture) Server(int32) (id, address string, epoch uint64, ok bool) {
	defer func() { s.shown.Store(s.owned.Load()) }()
	if s.shown.Load() {
		return "a", "", 2, true
	}
	return "dead", "dead", 1, true
}

func (*slowPicture) Heard(string) time.Time { return time.Now().Add(-time.Hour) }

func TestAPartitionJustClaimedIsNotTakenForLost(t *testing.T) {
	s := &slowPicture{member: member{cluster: newCluster(), id: "a"}}
	m, err := New(Config{
		Node: "a", Partitions: 1, Host: s, Peers: s, Wire: s, Fresh: func() bool { return true }, Logger: slog.New(slog.DiscardHandler),
		Silence: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Table(&placement.Table{Generation: 1, Members: []placement.Member{{ID: "a", Capacity: 1}}, Owners: []int32{0}})
	for range 5 {
		m.Step(t.Context())
	}
	if !s.owned.Load() || s.drops.Load() > 0 {
		t.Errorf("claimed: %v, dropped %d times for the epoch of a dead node", s.owned.Load(), s.drops.Load())
	}
}

// TestAnOwnerWithoutASessionLetsGoAtOnce: it most likely does not reach the log either, and would wait for
// what is in flight in vain.
func TestAnOwnerWithoutASessionLetsGoAtOnce(t *testing.T) {
	c := newCluster()
	a := c.join(t, "a", 1)
	c.table(1, 1, "a")
	c.awaitServing(t, map[int32]string{0: "a"})
	c.join(t, "b", 1)
	c.movers["b"].cfg.Patience = time.Hour // before it has a table
	a.hang.Store(true)
	a.fresh.Store(false)
	c.movers["b"].Table(&placement.Table{Generation: 2, Members: []placement.Member{{ID: "b", Capacity: 1}}, Owners: []int32{0}})
	c.awaitServing(t, map[int32]string{0: "b"})
}
