// Package notify delivers alerts to people: to webhooks as CloudEvents, and to Alertmanagers.
//
// Each sink reads doppel.alerts by itself, from a cursor of its own that outlives the node and moves with
// the partitions: a node delivers what is of the partitions that it serves. A transition is delivered at
// least once, in the order of its partition, and again where a partition moved or a node died between a
// delivery and the commit behind it; its id is its place in the log, so receivers can tell. A sink that
// fails or hangs holds up nobody but itself: its transitions wait in the log.
//
// It does not decide who is to be told of what beyond a sink's filter: alerts that are pending, silenced or
// in shadow are nobody's.
//
// Own and Release may be called from anywhere and never block; the rest belongs to Run.
package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Log is doppel.alerts.
type Log interface {
	// Bounds are, by partition, the first offset still there and the offset behind the last.
	Bounds(ctx context.Context) (start, end []int64, err error)
	// Tail calls fn with what stands in some partitions, from the offset given of each, as it comes, until
	// ctx ends or fn fails. Alert is nil where it is nothing of ours. host.ErrNotRetained: some of it is gone.
	Tail(ctx context.Context, from map[int32]int64, fn func(host.Published) error) error
}

// Cursors keep how far a sink is, for whichever node comes next.
type Cursors interface {
	Load(ctx context.Context) (map[int32]host.AlertPlace, error)
	// Save replaces those of the partitions given.
	Save(ctx context.Context, places map[int32]host.AlertPlace) error
}

// Config of a Notifier. All but Logger must be set.
type Config struct {
	Sinks   []Sink
	Log     Log
	Cursors func(sink string) Cursors
	// Open are the alerts of a partition that this node serves; a transition that stands in the Log must
	// already be visible here.
	Open func(ctx context.Context, p int32) ([]*doppelv1.Alert, error)
	// Source of the CloudEvents: the same as in doppel.alerts.
	Source string
	Logger *slog.Logger // default: none
}

// Notifier runs the sinks.
type Notifier struct {
	cfg   Config
	sinks []*sink
	ends  atomic.Pointer[[]int64] // of doppel.alerts, as they were last
}

// New checks the sinks. It starts nothing.
func New(cfg Config) (*Notifier, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	env, err := filter.NewEnv(&doppelv1.Alert{})
	if err != nil {
		return nil, err
	}
	n := &Notifier{cfg: cfg}
	for _, c := range cfg.Sinks {
		if err := c.complete(env); err != nil {
			return nil, fmt.Errorf("sink %q: %w", c.Name, err)
		}
		s, err := newSink(c, &n.cfg)
		if err != nil {
			return nil, fmt.Errorf("sink %q: %w", c.Name, err)
		}
		n.sinks = append(n.sinks, s)
	}
	return n, nil
}

// Begin notes where the log ends: a sink without a place in a partition begins there. Call it before any Own,
// so that nothing that happens from then on is missed.
func (n *Notifier) Begin(ctx context.Context) error {
	_, end, err := n.cfg.Log.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	n.ends.Store(&end)
	for _, s := range n.sinks {
		s.origin = end
	}
	return nil
}

// Own has this node deliver the alerts of partition p.
func (n *Notifier) Own(p int32) {
	for _, s := range n.sinks {
		s.own(p, true)
	}
}

// Release has it deliver them no more.
func (n *Notifier) Release(p int32) {
	for _, s := range n.sinks {
		s.own(p, false)
	}
}

// endsEvery is how often the ends of doppel.alerts are asked for, which lag is counted from.
const endsEvery = 2 * time.Second

// Run delivers until ctx ends; then it finishes what is on its way, for two seconds at most, and leaves the
// cursors behind.
func (n *Notifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range n.sinks {
		wg.Go(func() { s.run(ctx) })
	}
	t := time.NewTicker(endsEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		if _, end, err := n.cfg.Log.Bounds(ctx); err == nil {
			n.ends.Store(&end)
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	wg.Wait()
	return nil
}

// Result is what became of a transition, or of an attempt to deliver it.
type Result string

// The results.
const (
	Delivered Result = "delivered"
	Failed    Result = "failed"  // an attempt; there will be another one
	Dropped   Result = "dropped" // the receiver refuses it for good
	Expired   Result = "expired" // it could not be delivered in time
	Lost      Result = "lost"    // the log lost it before it was read
)

// SinkStats are the figures of a sink.
type SinkStats struct {
	Sink   string
	Counts map[Result]uint64
	// Lag is the number of records of this node's partitions that were not looked at.
	Lag int64
}

// Stats are the figures of all sinks.
func (n *Notifier) Stats() []SinkStats {
	var all []SinkStats
	var ends []int64
	if e := n.ends.Load(); e != nil {
		ends = *e
	}
	for _, s := range n.sinks {
		st := SinkStats{Sink: s.cfg.Name, Counts: map[Result]uint64{}}
		for r, c := range s.counts {
			st.Counts[r] = c.Load()
		}
		st.Lag = s.lag(ends)
		all = append(all, st)
	}
	return all
}
