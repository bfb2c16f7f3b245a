// Package group makes the nodes of a cluster agree on who is to own which partition: they are members of
// one Kafka consumer group, and its leader gives everyone the same table (placement.Table).
//
// A table is a hint, and the log of a partition decides (it fences: two nodes that believe in different
// tables do no harm). So a plan moves a partition in one generation, there is no revoking beforehand, and
// the loss of the membership has no effect by itself: only a newer table takes a partition away.
//
// That is why the membership is not the one of kgo's consumer, which ties it to fetching: it rejoins
// after an unanswered heartbeat, once more whenever it lost a partition, cannot leave while it joins, and
// keeps to itself what the coordinator said last. Here kgo carries the requests, to whichever broker
// coordinates the group now; joining, the plan and the heartbeats are in this package. The group looks
// like any other from outside (protocol "consumer"), so Kafka's tools show its members and lag.
//
// It fetches nothing, owns nothing and hands nothing over. The methods of Group may be called from any
// goroutine; OnTable is called by Run's, one call at a time.
package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// How the group is kept together.
const (
	// sessionTimeout is after how much silence the coordinator takes a node for dead: the least that
	// Kafka's default configuration admits.
	sessionTimeout = 6 * time.Second
	// rebalanceTimeout is how long a rebalance waits for members that do not join again, such as one
	// that is stopped; it is out of the group then.
	rebalanceTimeout = 5 * time.Second
	// heartbeatInterval bounds how late a node learns of a rebalance.
	heartbeatInterval = 300 * time.Millisecond
)

// Config is what a Group needs.
type Config struct {
	// Connection is how the log is reached; see kafka.Client.Options.
	Connection []kgo.Opt
	// Group and Topic are the names of the consumer group and of the topic whose partitions are shared
	// out, Partitions how many it has. Required, and the same on all nodes.
	Group, Topic string
	Partitions   int32
	// Node is the id of this node, Incarnation tells its runs apart: later ones are greater. Required.
	Node        string
	Incarnation uint64
	// Capacity is this node's weight (placement.Member.Capacity); 0: it takes nothing.
	Capacity int
	// Former is the last member id that Seated was told by an earlier run of this node, which is certainly
	// over: it is made to leave, so that nobody waits for its session to run out. Empty: none.
	Former string
	// Seated is told what the coordinator knows this node by; it must not block for long. nil: nobody
	// wants to know.
	Seated func(member string)
	// OnTable gets every new table, in the order of generations. Heartbeats go on while it runs, but
	// no newer table comes. nil: nobody wants them.
	OnTable func(*placement.Table)
	// Logger: nil: nothing is logged.
	Logger *slog.Logger
}

// ErrNotMember is in the chain of the error of a Commit without a membership.
var ErrNotMember = errors.New("not a member of the group")

// Group is the membership of this node.
type Group struct {
	cfg    Config
	opts   []kgo.Opt
	client atomic.Pointer[kgo.Client] // nil unless Run runs
	table  atomic.Pointer[placement.Table]
	heard  atomic.Pointer[time.Time]
	kick   chan struct{} // cap 1: join again

	mu       sync.Mutex
	seat     seat
	joining  bool
	capacity int
	since    map[int32]int64 // the partitions of this node, by the generation that gave it each
}

// seat is what the coordinator knows a member by. The zero value is none.
type seat struct {
	member     string
	generation int32 // 0 until the first join has succeeded
}

// New checks cfg. It starts nothing: Run does.
func New(cfg Config) (*Group, error) {
	switch {
	case cfg.Group == "" || cfg.Topic == "" || cfg.Node == "":
		return nil, fmt.Errorf("group %q of %q for node %q: a name is empty", cfg.Group, cfg.Topic, cfg.Node)
	case cfg.Partitions <= 0:
		return nil, fmt.Errorf("group %s: %d partitions", cfg.Group, cfg.Partitions)
	case cfg.Capacity < 0:
		return nil, fmt.Errorf("group %s: capacity %d", cfg.Group, cfg.Capacity)
	}
	if cfg.OnTable == nil {
		cfg.OnTable = func(*placement.Table) {}
	}
	if cfg.Seated == nil {
		cfg.Seated = func(string) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	opts := slices.Concat(cfg.Connection, transport())
	if err := kgo.ValidateOpts(opts...); err != nil {
		return nil, fmt.Errorf("group %s: %w", cfg.Group, err)
	}
	return &Group{cfg: cfg, opts: opts, kick: make(chan struct{}, 1), capacity: cfg.Capacity}, nil
}

// Table is the newest table; nil until there was one.
func (g *Group) Table() *placement.Table { return g.table.Load() }

// Heard is when this node was last known to be a member: when the newest of its requests was sent to
// which the coordinator answered as to a member. The sending counts, because after a pause of this
// process an answer may have waited for it while the membership ran out. Zero: never.
func (g *Group) Heard() time.Time {
	if t := g.heard.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// SetCapacity changes the weight of this node, and by that the table. 0 drains it.
func (g *Group) SetCapacity(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n = max(n, 0); n != g.capacity {
		g.capacity = n
		g.rejoin()
	}
}

// rejoin makes Run join again, if it is not about to.
func (g *Group) rejoin() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// Commit writes how far ingest has been handled, as the offsets of the group. They are a figure of lag
// and nothing starts from them, so during a rebalance a commit may fail; the next one makes up for it.
func (g *Group) Commit(ctx context.Context, offsets map[int32]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	cl, s := g.client.Load(), g.current()
	if cl == nil || s.generation == 0 {
		return fmt.Errorf("commit to group %s: %w", g.cfg.Group, ErrNotMember)
	}
	if err := g.commit(ctx, cl, s, offsets); err != nil {
		return fmt.Errorf("commit to group %s: %w", g.cfg.Group, err)
	}
	return nil
}

func (g *Group) current() seat {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seat
}
