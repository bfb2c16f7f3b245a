// Package handover brings what a node serves in line with the newest table of the group, so that nobody
// notices: the node that is to own a partition reads its state while the other one still serves it, asks
// for it, and claims it as soon as the other has let go.
//
//	new owner                         old owner
//	table: it is mine                 table: it is not mine; serves on
//	Warm: state and log ─────────────
//	TakePartition ──────────────────▶ Release: drain, checkpoints, floor (O9)
//	Own: Claim, the rest of the log ◀──────────────────── PartitionReleased
//
// None of it is needed for safety: a claim ends every older epoch, whatever messages were lost or late. So
// whoever does not answer is not waited for long, and a node that lost its session with the group claims
// nothing until it has a new one (O5).
//
// A Mover is one goroutine (Run); the others it starts read and drain one partition each. Table, Changed and
// what comes from the wire may be called from anywhere.
package handover

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Actor is the name under which a Mover receives its messages.
const Actor = "handover"

// Host runs the partitions of this node.
type Host interface {
	Own(p int32)
	Warm(ctx context.Context, p int32) error
	Release(ctx context.Context, p int32) error
	Drop(p int32)
	// Serves says whether this node serves p, by the picture that Peers.Server is taken from.
	Serves(p int32) bool
}

// Peers knows what other nodes say that they serve.
type Peers interface {
	// Server is the node that serves p by the newest epoch heard of.
	Server(p int32) (id, address string, epoch uint64, ok bool)
	// Heard is when a node was last heard of; zero: never.
	Heard(id string) time.Time
}

// Wire carries messages between nodes.
type Wire interface {
	Tell(address, actor string, m proto.Message) error
	Handle(actor string, fn func(from string, m proto.Message))
}

// Config of a Mover. All but the times must be set.
type Config struct {
	Node       string
	Partitions int32
	Host       Host
	Peers      Peers
	Wire       Wire
	// Fresh says that this node's session with the group is in force.
	Fresh  func() bool
	Clock  func() time.Time // default: the system's
	Go     func(fn func())  // calls fn, which waits for the host, beside its caller (default: a goroutine)
	Logger *slog.Logger

	// AtOnce bounds the partitions that are between two owners at a time (default 8), Warming those
	// whose state is being read (default 4).
	AtOnce, Warming int
	// Silence is how long an old owner may be silent before it is not waited for (default 1 s), Patience
	// how long it may take to let go (default 8 s), Unasked how long an owner waits to be asked for what
	// is not its own any more (default 15 s).
	Silence, Patience, Unasked time.Duration
}

func (c Config) withDefaults() Config {
	c.AtOnce, c.Warming = cmp.Or(c.AtOnce, 8), cmp.Or(c.Warming, 4)
	c.Silence = cmp.Or(c.Silence, time.Second)
	c.Patience = cmp.Or(c.Patience, 8*time.Second)
	c.Unasked = cmp.Or(c.Unasked, 15*time.Second)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Go == nil {
		c.Go = func(fn func()) { go fn() }
	}
	return c
}

// Mover moves partitions to and from this node.
type Mover struct {
	cfg   Config
	kick  chan struct{}
	moves atomic.Int64 // partitions under way

	mu     sync.Mutex
	table  *placement.Table
	since  time.Time // when table came
	events []func(context.Context, time.Time)

	slots []slot // of the goroutine of Run
	done  chan struct{}
}

// New returns a Mover that moves nothing before Run.
func New(cfg Config) (*Mover, error) {
	if cfg.Node == "" || cfg.Host == nil || cfg.Peers == nil || cfg.Wire == nil || cfg.Fresh == nil || cfg.Logger == nil {
		return nil, errors.New("handover: node, host, peers, wire, fresh and logger must be set")
	}
	return &Mover{cfg: cfg.withDefaults(), kick: make(chan struct{}, 1), slots: make([]slot, cfg.Partitions), done: make(chan struct{})}, nil
}

// Table tells of the newest table.
func (m *Mover) Table(t *placement.Table) {
	m.mu.Lock()
	if m.table == nil || t.Generation >= m.table.Generation {
		m.table, m.since = t, m.cfg.Clock()
	}
	m.mu.Unlock()
	m.Changed()
}

// Changed tells that what other nodes or the host serve has changed.
func (m *Mover) Changed() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Assigned says that this node is to own p, as far as it can know (O5).
func (m *Mover) Assigned(p int32) bool {
	m.mu.Lock()
	t := m.table
	m.mu.Unlock()
	if t == nil || !m.cfg.Fresh() {
		return false
	}
	id, ok := t.Owner(p)
	return ok && id == m.cfg.Node
}

// Moving is how many partitions are on their way to this node or away from it.
func (m *Mover) Moving() int64 { return m.moves.Load() }

// post has fn called by the goroutine of Run.
func (m *Mover) post(fn func(context.Context, time.Time)) {
	m.mu.Lock()
	m.events = append(m.events, fn)
	m.mu.Unlock()
	m.Changed()
}

// Listen begins to take what other movers send. Run does it; a simulation calls it and Step instead.
func (m *Mover) Listen() { m.cfg.Wire.Handle(Actor, m.receive) }

// Run moves partitions until ctx ends, and then hands over everything that this node still has.
func (m *Mover) Run(ctx context.Context) error {
	const pace = 50 * time.Millisecond
	m.Listen()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	t := time.NewTicker(pace)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			m.releaseAll(work)
			return nil
		case <-t.C:
		case <-m.kick:
		}
		m.Step(work)
	}
}

// Step does what is due: on a change, and otherwise every 50 ms. What it begins ends with ctx.
func (m *Mover) Step(ctx context.Context) {
	now := m.cfg.Clock()
	m.mu.Lock()
	events := m.events
	m.events = nil
	m.mu.Unlock()
	for _, fn := range events {
		fn(ctx, now)
	}
	m.reconcile(ctx, now)
}

// releaseAll lets go of everything.
func (m *Mover) releaseAll(ctx context.Context) {
	var wg sync.WaitGroup
	for p := range m.slots {
		m.slots[p].stop()
		wg.Go(func() { _ = m.cfg.Host.Release(ctx, int32(p)) }) // what it did not wait for, the log keeps
	}
	wg.Wait()
}

// receive takes messages of other movers.
func (m *Mover) receive(from string, msg proto.Message) {
	switch msg := msg.(type) {
	case *doppelv1.TakePartition:
		if p := msg.GetPartition(); p >= 0 && p < m.cfg.Partitions {
			m.post(func(ctx context.Context, now time.Time) { m.asked(ctx, from, p, msg.GetGeneration(), now) })
		}
	case *doppelv1.PartitionReleased:
		if p := msg.GetPartition(); p >= 0 && p < m.cfg.Partitions {
			m.post(func(_ context.Context, now time.Time) { m.released(p, now) })
		}
	}
}
