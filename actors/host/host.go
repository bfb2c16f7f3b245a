package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
)

// Config of a Host. The ports must be set, except Rows, Watchers and Rejected.
type Config struct {
	Node        string // node id
	Incarnation uint64 // grows with each start of the node
	Partitions  int32

	Changelog   Log // doppel.telemetry
	State       Log // doppel.state
	Ingest      Ingest
	Retention   Retention // nil: the log sees to it
	DeadLetters DeadLetters
	Alerts      AlertLog
	Rows        RowSink  // nil: no time series store
	Watchers    Watchers // nil: nobody watches
	Gateways    Gateways // nil: none whose messages could be under way
	Devices     Devices  // nil: devices are told of nothing
	// DesiredAnew: what Devices publishes is lost with this node, so all of it is published anew by each owner.
	DesiredAnew bool

	// Engine that knows the twins; nil: one of the host's own.
	Engine *actor.Engine
	// Served is told whenever a partition begins or ends to be served; it must not block.
	Served func(p int32, epoch uint64, serving bool)
	// Assigned says whether this node is to own a partition, as far as it can know now. It is asked before
	// every claim, and one is put off until it says so (O5). Nil: it is.
	Assigned func(p int32) bool

	// Rejected tells a device that a message of it was refused; it must not block.
	Rejected func(device string, r twin.Reason, detail string)
	// RefuseUnknown sends telemetry of devices without a twin to the dead letters.
	RefuseUnknown bool

	// Ranges of metrics; a sample with a value outside is a dead letter.
	Ranges map[string]codec.Range

	// CheckpointAfter is how long a changed twin waits for its checkpoint (default one minute; a twin
	// about to be passive does not wait).
	CheckpointAfter time.Duration

	// PassivateAfter is how long a twin must be silent to be kept in its compact form (default 10
	// minutes; negative: never).
	PassivateAfter time.Duration

	Rules  *alert.Set    // in force where no record says otherwise; nil: the built-in rules
	Limits twin.Limits   // zero: 500 ms and 64 samples
	Clock  func() int64  // unix nanoseconds; nil: the system's clock
	Nonce  func() uint64 // asked by all partitions at the same time
	// Mailbox bounds the messages waiting in a partition (default 4,096), MailboxBytes what they may
	// weigh (default 2 MiB, and one batch on top; as much again while they are worked off), InFlight
	// the records of a partition that are not acknowledged yet (default 8,192, and what one message
	// makes on top). It should not be more than the log takes without blocking: a partition that waits
	// there answers nobody.
	Mailbox, MailboxBytes, InFlight int
	// Beat is how often a partition is woken for messages and acknowledgements at most, unless there are
	// many (default 0: for each; not with a Stepper). What follows a pause does not wait.
	Beat    time.Duration
	Observe Observe // nil: nobody
	Beside  Beside  // nil: goroutines and the system's timers
	// BeforeStep is called with each device before its twin takes an input; nil: nobody. Tests make a
	// twin panic with it.
	BeforeStep func(device string)
	Logger     *slog.Logger
}

// Host runs the partitions of this node.
type Host struct {
	cfg    Config
	log    *slog.Logger
	engine *actor.Engine
	parts  []*partition
	beat   *beat // nil: nothing waits for one
	stats  Stats
	failed chan error // the first partition that refuses to serve
	// surveys holds one for each survey that looks at twins: they use half of the processors at most.
	surveys chan struct{}

	compiler *ruleset.Compiler
	base     *ruleset.Set                // in force behind a Claim
	ordered  atomic.Pointer[ruleset.Set] // what partitions are to follow; nil: what their logs have

	// launch serves a partition until ctx ends, or work at the latest, and then calls over.
	launch   func(ctx, work context.Context, p *partition, over func(error))
	stepHook func(*cell) // faults in tests
}

// New returns a Host that serves nothing yet.
func New(cfg Config) (*Host, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if cfg.Engine == nil {
		var err error
		if cfg.Engine, err = actor.NewEngine(actor.NewEngineConfig()); err != nil {
			return nil, fmt.Errorf("actor engine: %w", err)
		}
	}
	h := &Host{cfg: cfg, log: cfg.Logger, engine: cfg.Engine, failed: make(chan error, 1), launch: launch}
	if cfg.Beat > 0 {
		h.beat = newBeat(cfg.Beat)
	}
	h.surveys = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	h.compiler, h.base = ruleset.NewCompiler(), &ruleset.Set{Alerts: cfg.Rules}
	if cfg.BeforeStep != nil {
		h.stepHook = func(c *cell) { cfg.BeforeStep(c.id()) }
	}
	for id := range cfg.Partitions {
		h.parts = append(h.parts, newPartition(h, id))
	}
	return h, nil
}

func (c *Config) complete() error {
	switch {
	case c.Partitions < 1:
		return fmt.Errorf("host: partitions is %d, want at least 1", c.Partitions)
	case c.Changelog == nil || c.State == nil || c.Ingest == nil || c.DeadLetters == nil || c.Alerts == nil || c.Logger == nil:
		return errors.New("host: changelog, state, ingest, dead letters, alerts and logger must be set")
	case c.Clock == nil || c.Nonce == nil:
		return errors.New("host: clock and nonce must be set")
	}
	if c.Rules == nil {
		rules, err := alert.NewSet(alert.Builtin())
		if err != nil {
			return fmt.Errorf("built-in rules: %w", err)
		}
		c.Rules = rules
	}
	if c.Limits == (twin.Limits{}) {
		c.Limits = twin.SettledLimits()
	}
	if c.PassivateAfter == 0 {
		c.PassivateAfter = defaultPassivateAfter
	}
	if c.CheckpointAfter == 0 {
		c.CheckpointAfter = defaultCheckpointAfter
	}
	if c.Mailbox == 0 {
		c.Mailbox = 4096
	}
	if c.MailboxBytes == 0 {
		c.MailboxBytes = 2 << 20
	}
	if c.InFlight == 0 {
		c.InFlight = 8192
	}
	if c.Beside == nil {
		c.Beside = goroutines{}
	}
	if c.Observe == nil {
		c.Observe = func(Stage, time.Duration) {}
	}
	if c.Served == nil {
		c.Served = func(int32, uint64, bool) {}
	}
	if c.Assigned == nil {
		c.Assigned = func(int32) bool { return true }
	}
	if c.Rejected == nil {
		c.Rejected = func(string, twin.Reason, string) {}
	}
	return nil
}

// Stats are the accounts of this node.
func (h *Host) Stats() *Stats { return &h.stats }

// Engine is the actor engine that knows every twin of this node by its PID, twin/<device>.
func (h *Host) Engine() *actor.Engine { return h.engine }

// Push hands messages to partition p, waiting while its mailbox is full. Every message gets its
// verdict through its Reply; an error means that none of them was taken.
func (h *Host) Push(ctx context.Context, p int32, msgs []Message) error {
	return h.parts[p].box.push(ctx, msgs)
}

// Offer is Push for a caller with another way: it returns ErrUnavailable at once while no owner
// serves the partition, and ErrSaturated when its mailbox was full for patience and nothing was
// released meanwhile. An error means that none of msgs was taken.
func (h *Host) Offer(ctx context.Context, p int32, msgs []Message, patience time.Duration) error {
	return h.parts[p].offer(ctx, msgs, patience)
}

// Takes says what Offer would: nil if it would take messages now or soon.
func (h *Host) Takes(p int32, patience time.Duration) error {
	if h.parts[p].view.Load().State != Serving {
		return ErrUnavailable
	}
	return h.parts[p].box.takes(patience, h.parts[p].progress)
}

// Refuse makes a dead letter that a door found before a message could be addressed, and accounts
// for it as one sample received.
func (h *Host) Refuse(ctx context.Context, d DeadLetter, done func(error)) {
	d.Node = h.cfg.Node
	h.stats.Received.Add(1)
	h.cfg.DeadLetters.Put(ctx, d, func(err error) {
		if err != nil {
			h.stats.sentBack(1) // the door will refuse it again
		} else {
			h.stats.DeadLettered.Add(1)
			h.stats.deadLettered(d.Reason)
		}
		done(err)
	})
}

// Restored reports how many of the partitions that this node owns serve, for readiness.
func (h *Host) Restored() (serving, total int) {
	for _, p := range h.parts {
		if !p.owned() {
			continue
		}
		total++
		if p.view.Load().State == Serving {
			serving++
		}
	}
	return serving, total
}
