package host

import (
	"context"
	"fmt"
	"strings"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// moment runs read on the goroutine of partition p and returns, when all that read saw is released, the
// offset behind the newest record of it: what read saw is the fold of the log below that offset, no
// record less and none more.
func (h *Host) moment(ctx context.Context, p int32, read func(*owner)) (next int64, err error) {
	return h.settled(ctx, p, func(o *owner) uint64 { read(o); return o.n })
}

// glance is what is taken of a partition in one of its turns. A turn must be short, and a hash costs some
// microseconds: most hot twins were hashed in turns before, a few at a time, and only those that changed
// since are hashed again; passive ones cannot change and are hashed later.
type glance struct {
	hot       map[string]seen
	passive   []passive
	broken    bool // a twin panicked and is about to be restored
	unsettled int
}

// seen is what an audit keeps of a twin.
type seen struct {
	hash     uint64
	counters twin.Counters
	deleted  bool
	former   uint64 // samples of former lives
}

func sight(t *twin.Twin) seen { return seen{t.Hash(), t.Counters(), t.Deleted(), t.FormerRows()} }

// hashed is a hot twin as of its record n.
type hashed struct {
	n uint64
	seen
}

// hashSome hashes the hot twins from place on in the rota, and returns how many it looked at.
func (o *owner) hashSome(place int, known map[*cell]hashed) int {
	some := o.idle.rota[min(place, len(o.idle.rota)):min(place+scanChunk, len(o.idle.rota))]
	for _, c := range some {
		known[c] = hashed{c.lastN, sight(&c.twin)}
	}
	return len(some)
}

func (o *owner) glance(known map[*cell]hashed) *glance {
	g := &glance{hot: make(map[string]seen, len(o.twins)), unsettled: o.unsettled}
	for id, c := range o.twins {
		if c.quarantined && !c.twin.Quarantined() {
			g.broken = true
		}
		if k, ok := known[c]; ok && k.n == c.lastN {
			k.counters.Duplicate = c.twin.Counters().Duplicate
			g.hot[id] = k.seen
			continue
		}
		g.hot[id] = sight(&c.twin)
	}
	g.passive = make([]passive, 0, len(o.idle.passive))
	for _, p := range o.idle.passive {
		g.passive = append(g.passive, *p)
	}
	return g
}

// each calls fn with every twin.
func (g *glance) each(fn func(device string, s seen)) error {
	for id, s := range g.hot {
		fn(id, s)
	}
	var t twin.Twin
	for i := range g.passive {
		id := g.passive[i].id()
		if err := t.Decode(id, []byte(g.passive[i].encoded()), nil); err != nil {
			return fmt.Errorf("passive twin: %w", err)
		}
		fn(id, sight(&t))
	}
	return nil
}

// look takes a glance at partition p and the offset it stands for.
func (h *Host) look(ctx context.Context, p int32) (*glance, int64, error) {
	var g *glance // of the partition until moment has returned without an error
	known := make(map[*cell]hashed)
	for place, some := 0, 1; some > 0; place += some {
		err := h.ask(ctx, p, func(o *owner) uint64 { some = o.hashSome(place, known); return 0 })
		if err != nil {
			return nil, 0, err
		}
	}
	next, err := h.moment(ctx, p, func(o *owner) { g = o.glance(known) })
	switch {
	case err != nil:
		return nil, 0, err
	case g.broken:
		return nil, 0, ErrUnavailable
	}
	return g, next, nil
}

// Standing is the state of partition p at one moment, and the samples it has taken and not settled yet.
type Standing struct {
	Audit     *doppelv1.PartitionAudit
	Counters  twin.Counters // sum over its twins
	Unsettled int
}

// Standing sums up the twins of partition p: its state hash equals that of a fold of the log below the
// offset it names. It costs the partition some microseconds for each hot twin, spread over many turns.
func (h *Host) Standing(ctx context.Context, p int32) (Standing, error) {
	g, next, err := h.look(ctx, p)
	if err != nil {
		return Standing{}, err
	}
	s := Standing{Audit: &doppelv1.PartitionAudit{Id: p, NextOffset: uint64(next)}, Unsettled: g.unsettled}
	err = g.each(func(_ string, t seen) {
		if !t.deleted {
			s.Audit.Twins++
		}
		s.Audit.StateHash += t.hash
		addCounters(&s.Counters, &t.counters)
	})
	return s, err
}

// StateHash is the state hash of partition p at one moment.
func (h *Host) StateHash(ctx context.Context, p int32) (*doppelv1.PartitionAudit, error) {
	s, err := h.Standing(ctx, p)
	return s.Audit, err
}

func addCounters(sum, c *twin.Counters) {
	sum.Applied += c.Applied
	sum.Late += c.Late
	sum.Duplicate += c.Duplicate
	sum.DeadLettered += c.DeadLettered
	sum.Held += c.Held
	sum.Gaps += c.Gaps
	sum.Missing += c.Missing
}

// Check is a partition held against its log.
type Check struct {
	Standing
	Fold       FoldStats
	From       int64             // the fold began there
	FoldHash   uint64            // state hash of the fold
	Rows       map[string]uint64 // samples that have a row, by device: applied and late
	Former     map[string]uint64 // of these, those of twins that were deleted since
	Uncovered  uint64            // twins that the log says too little about to check them
	Difference string            // the first; empty: none
}

// Check folds the log of partition p again, below the offset of one moment, and compares every twin
// with what was live at that moment.
func (h *Host) Check(ctx context.Context, p int32) (*Check, error) {
	f, err := h.past(ctx, p, "")
	if err != nil {
		return nil, err
	}
	g, next, err := h.look(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := f.read(ctx, next, nil); err != nil {
		return nil, err
	}
	c := &Check{
		Standing: Standing{Audit: &doppelv1.PartitionAudit{Id: p, NextOffset: uint64(next)}, Unsettled: g.unsettled},
		Fold:     f.Stats, From: f.start.Next, Rows: make(map[string]uint64, len(g.hot)+len(g.passive)), Former: make(map[string]uint64),
	}
	if f.First != nil {
		c.Difference = "the log against its replay: " + f.First.String()
	}
	worst := Difference{Offset: -1}
	differ := func(device, what string) {
		if worst.What == "" || device < worst.Device {
			worst.Device, worst.What = strings.Clone(device), what
		}
	}
	err = g.each(func(device string, live seen) {
		if !live.deleted {
			c.Audit.Twins++
		}
		c.Audit.StateHash += live.hash
		addCounters(&c.Counters, &live.counters)
		device = strings.Clone(device)
		c.Rows[device] = live.counters.Applied + live.counters.Late + live.former
		if live.former > 0 {
			c.Former[device] = live.former
		}
		t := f.Twin(device)
		if t == nil && !f.whole {
			c.Uncovered++
			return
		}
		if t == nil {
			differ(device, "is live and in no record")
			return
		}
		hash := t.Hash()
		c.FoldHash += hash
		if hash != live.hash {
			differ(device, countersDiffer(&live.counters, t))
		}
	})
	if err != nil {
		return nil, err
	}
	f.Each(func(t *twin.Twin) {
		if _, live := c.Rows[t.ID()]; !live {
			c.FoldHash += t.Hash()
			differ(t.ID(), "is in the log and not live")
		}
	})
	if c.Difference == "" && worst.What != "" {
		c.Difference = "the live twins against the log: " + worst.String()
	}
	return c, nil
}

// countersDiffer says of two states with different hashes whether their accounts differ, too.
func countersDiffer(live *twin.Counters, t *twin.Twin) string {
	folded := t.Counters()
	for _, n := range [...]struct {
		name      string
		live, log uint64
	}{
		{"applied", live.Applied, folded.Applied},
		{"late", live.Late, folded.Late},
		{"dead_lettered", live.DeadLettered, folded.DeadLettered},
		{"held", live.Held, folded.Held},
		{"gaps", live.Gaps, folded.Gaps},
		{"missing", live.Missing, folded.Missing},
	} {
		if n.live != n.log {
			return fmt.Sprintf("%s is %d, in the log %d", n.name, n.live, n.log)
		}
	}
	return fmt.Sprintf("same accounts but another state; `doppel replay %s` names what differs", t.ID())
}
