package host

import (
	"context"
	"runtime"
	"strings"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// A survey takes this much of a partition's goroutine at a time: so many passive twins, of which it
	// takes no more than where they are, or an eighth of that many hot ones, which are looked at there.
	// Either is a fraction of a millisecond.
	surveyTurn = 4096
	surveyHot  = 8
	// surveyYield is how many passive twins are looked at before others may have the processor.
	surveyYield = 256
)

// Query is which twins are asked for.
type Query struct {
	Filter filter.Filter
	Order  selection.Order
	After  *selection.Key // only behind it; nil: from the first
	Limit  int            // 0: all
}

// Selected is what a partition has of what was asked for.
type Selected struct {
	Keys  []selection.Key // in order
	More  bool            // there are more behind the last one
	Count int64           // all that pass the filter, wherever in the order
	// Twins are those of Keys, where they were read, too; one that is gone is nil.
	Twins []*doppelv1.Twin
}

// Select finds the first twins of partition p in an order that pass a filter. Twins that change
// meanwhile are found as they were at some moment of it; none that is there throughout is met twice or
// not at all. What it saw is released when it returns.
func (h *Host) Select(ctx context.Context, p int32, q *Query) (*Selected, error) {
	first := selection.NewFirst[struct{}](q.Order, q.Limit, q.After)
	var got Selected
	var key selection.Key
	err := h.survey(ctx, p, q.Filter.Plan(indexed...), func(_ uint32, of *filter.Question) error {
		if !q.Order.KeyOfTwin(&key, of) {
			return nil
		}
		got.Count++
		if first.Wants(key) {
			first.Keep(key.Clone(), struct{}{})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	items, more := first.Result()
	got.More, got.Keys = more, make([]selection.Key, len(items))
	for i := range items {
		got.Keys[i] = items[i].Key
	}
	return &got, nil
}

// Summarize counts the twins of partition p that pass a filter.
func (h *Host) Summarize(ctx context.Context, p int32, f filter.Filter, by *selection.Grouping, to *selection.Groups) error {
	return h.survey(ctx, p, f.Plan(indexed...), func(_ uint32, of *filter.Question) error {
		value := ""
		switch by.Kind {
		case selection.ByNothing:
		case selection.ByOnline:
			value = yesNo(of.View.Online())
		case selection.ByQuarantined:
			value = yesNo(of.View.Quarantined() || of.Facts.Quarantined)
		case selection.ByOwner:
			value = of.Facts.Owner
		case selection.ByTag:
			b, _ := of.View.Tag(by.Tag)
			to.AddTo(b, of.View.Value)
			return to.Err()
		}
		to.Add(value, of.View.Value)
		return to.Err()
	})
}

func yesNo(v bool) string {
	if v {
		return "true"
	}
	return "false"
}

// survey calls visit for every twin of partition p that passes a plan, by turns on the goroutine of the
// partition, for hot twins, and on the caller's.
func (h *Host) survey(ctx context.Context, p int32, plan *filter.Plan, visit func(place uint32, of *filter.Question) error) error {
	s := &survey{host: h, plan: plan, visit: visit, at: 1}
	s.passive.of = filter.Question{View: &s.passive, Whole: s.passive.all}
	for !s.done {
		if err := h.call(ctx, p, s.turn); err != nil {
			return err
		}
		if s.err == nil {
			s.err = s.lookAtPassive(ctx)
		}
		if s.err != nil {
			return s.err
		}
	}
	_, err := h.show(ctx, p, func(o *owner) uint64 {
		if o.epoch != s.epoch {
			s.err = ErrUnavailable
		}
		return s.newest
	})
	if err != nil {
		return err
	}
	return s.err
}

// call runs fn on the goroutine of partition p.
func (h *Host) call(ctx context.Context, p int32, fn func(*owner)) error {
	if !h.parts[p].view.Load().answers() {
		return ErrUnavailable
	}
	done := make(chan error, 1)
	h.parts[p].box.call(func(o *owner) {
		if o == nil || !o.served {
			done <- ErrUnavailable
			return
		}
		fn(o)
		done <- nil
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// survey is a walk over the twins of a partition. It belongs to one goroutine after another: the
// caller's, and that of the partition while the caller waits.
type survey struct {
	host  *Host
	plan  *filter.Plan
	visit func(place uint32, of *filter.Question) error

	epoch  uint64
	at     uint32 // next place
	done   bool
	newest uint64 // record that was seen
	found  []found
	err    error

	passive passiveView
}

// found is a passive twin that has the terms of the plan. Its memory does not change.
type found struct {
	memory string
	idLen  uint8
	place  uint32
}

// turn looks at the next hot twins, and finds the next passive ones.
func (s *survey) turn(o *owner) {
	if s.epoch == 0 {
		s.epoch = o.epoch
	}
	if o.epoch != s.epoch {
		s.err = ErrUnavailable
		return
	}
	s.found = s.found[:0]
	hot := filter.Question{}
	facts := filter.Facts{Owner: o.host.cfg.Node, Epoch: o.epoch}
	for left := surveyTurn; left > 0; left-- {
		place := o.roster.next(s.at, s.plan.Terms())
		if place == 0 {
			s.done = true
			break
		}
		s.at = place + 1
		slot := &o.roster.slots[place]
		if p := slot.rest; p != nil {
			s.found = append(s.found, found{p.memory, p.idLen, place})
			continue
		}
		left -= surveyHot - 1
		c := slot.hot
		s.newest = max(s.newest, c.lastN)
		hot.View, hot.Facts = &c.twin, facts
		hot.Facts.Quarantined = c.quarantined
		hot.Whole = func() *twin.Twin { return &c.twin }
		if s.err = s.ask(place, &hot); s.err != nil {
			return
		}
	}
	s.passive.of.Facts = facts
}

func (s *survey) ask(place uint32, of *filter.Question) error {
	ok, err := s.plan.Holds(of)
	if err != nil || !ok {
		return err
	}
	return s.visit(place, of)
}

// lookAtPassive asks the passive twins that were found. Only a few do that at a time: the others are for
// what must not wait.
func (s *survey) lookAtPassive(ctx context.Context) error {
	if len(s.found) == 0 {
		return ctx.Err()
	}
	select {
	case s.host.surveys <- struct{}{}:
		defer func() { <-s.host.surveys }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := range s.found {
		if i%surveyYield == surveyYield-1 {
			if err := ctx.Err(); err != nil {
				return err
			}
			runtime.Gosched()
		}
		f := &s.found[i]
		s.passive.begin(f)
		if err := s.ask(f.place, &s.passive.of); err != nil {
			return err
		}
	}
	return nil
}

// passiveView is a passive twin as a filter sees it. It decodes no more than is asked for.
type passiveView struct {
	of      filter.Question
	id      string
	encoded string
	buf     []byte
	view    filter.View // nil: not looked at yet
	peek    twin.Peek
	whole   twin.Twin
	decoded bool
	broken  bool
	names   map[string]string
}

func (v *passiveView) begin(f *found) {
	v.id, v.encoded = f.memory[:f.idLen], f.memory[f.idLen:]
	v.view, v.decoded, v.broken, v.of.Facts.Quarantined = nil, false, false, false
}

// look is the view of what is encoded: of the front, or of all if that is not to be had.
func (v *passiveView) look() filter.View {
	if v.view != nil {
		return v.view
	}
	v.buf = append(v.buf[:0], v.encoded...)
	switch {
	case v.peek.Look(v.id, v.buf, v.name):
		v.view = &v.peek
	case v.all() != nil:
		v.view = &v.whole
	default:
		v.whole = *twin.New(strings.Clone(v.id), 0) // as it is shown: quarantined
		v.view, v.of.Facts.Quarantined = &v.whole, true
	}
	return v.view
}

// all is the whole twin, nil if it cannot be decoded.
func (v *passiveView) all() *twin.Twin {
	if !v.decoded {
		v.decoded = true
		v.buf = append(v.buf[:0], v.encoded...)
		v.broken = v.whole.Decode(v.id, v.buf, v.name) != nil
	}
	if v.broken {
		return nil
	}
	return &v.whole
}

// name keeps one copy of the few names that twins share.
func (v *passiveView) name(b []byte) string {
	if s, ok := v.names[string(b)]; ok {
		return s
	}
	const most = 4096
	if v.names == nil || len(v.names) == most {
		v.names = make(map[string]string)
	}
	s := string(b)
	v.names[s] = s
	return s
}

// ID implements filter.View.
func (v *passiveView) ID() string { return v.id }

// Online implements filter.View.
func (v *passiveView) Online() bool { return v.look().Online() }

// Quarantined implements filter.View.
func (v *passiveView) Quarantined() bool { return v.look().Quarantined() }

// Version implements filter.View.
func (v *passiveView) Version() uint64 { return v.look().Version() }

// ReportedVersion implements filter.View.
func (v *passiveView) ReportedVersion() uint64 { return v.look().ReportedVersion() }

// Digest implements filter.View.
func (v *passiveView) Digest() uint64 { return v.look().Digest() }

// LastSeen implements filter.View.
func (v *passiveView) LastSeen() int64 { return v.look().LastSeen() }

// CreateTime implements filter.View.
func (v *passiveView) CreateTime() int64 { return v.look().CreateTime() }

// Counters implements filter.View.
func (v *passiveView) Counters() twin.Counters { return v.look().Counters() }

// OpenCount implements filter.View.
func (v *passiveView) OpenCount() int { return v.look().OpenCount() }

// Value implements filter.View.
func (v *passiveView) Value(metric string) (float64, bool) { return v.look().Value(metric) }

// Tag implements filter.View.
func (v *passiveView) Tag(key string) ([]byte, bool) { return v.look().Tag(key) }
