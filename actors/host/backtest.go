package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// ErrTooMuch answers for a question that costs more than it may.
var ErrTooMuch = errors.New("too much to look at")

const (
	// backtestMost is how many samples of a partition one backtest looks at: some ten seconds.
	backtestMost = 10_000_000
	// backtestFired is how many alerts of a partition it keeps. Nobody reads more.
	backtestFired = 10_000
)

// Backtest is a rule over the recorded past.
type Backtest struct {
	Rule       *doppelv1.Rule
	Start, End int64    // unix nanoseconds by the owner's clock, as logged; End is not included
	Devices    []string // empty: all
}

// Backtest folds the log of partition p under the rules that were in force, with one more, or another of the
// same id, from Start on. It returns the alerts of that rule which fired, as they stood at End, and how many samples
// it saw: what the rule would have given, had it been applied at Start. Time by which nobody sent anything counts
// as it does live, where it is looked at once a tick.
func (h *Host) Backtest(ctx context.Context, p int32, t Backtest) (fired []*doppelv1.Alert, samples uint64, err error) {
	b := &backtest{host: h, test: t, rule: proto.CloneOf(t.Rule), alerts: make(map[uint64]int)}
	b.rule.Mode, b.rule.Version = alert.ModeLive, max(1, t.Rule.GetVersion())
	if _, err := h.compiler.Rule(b.rule); err != nil {
		return nil, 0, err
	}
	next, err := h.moment(ctx, p, func(*owner) {})
	if err != nil {
		return nil, 0, err
	}
	f, err := h.past(ctx, p, "")
	if err != nil {
		return nil, 0, err
	}
	b.fold = f.Fold
	if len(t.Devices) > 0 {
		f.only = make(map[string]bool, len(t.Devices))
		for _, d := range t.Devices {
			f.only[d] = true
		}
	}
	f.enacted, f.stepped = b.enact, b.step
	b.enact(nil)
	err = f.read(ctx, next, func(LogRecord) bool { return f.event.Now >= t.End || b.failed != nil || ctx.Err() != nil })
	switch {
	case err != nil:
		return nil, 0, err
	case ctx.Err() != nil:
		return nil, 0, ctx.Err()
	}
	if b.failed == nil {
		b.end()
	}
	if b.failed != nil {
		return nil, 0, b.failed
	}
	return b.fired(), b.samples, nil
}

// backtest is one on its way.
type backtest struct {
	host *Host
	test Backtest
	rule *doppelv1.Rule
	fold *Fold

	without, with *alert.Set // the rules in force: without the one that is tested, and with it
	begun         bool       // Start has come
	fx            twin.Effects
	samples       uint64
	order         []outcome      // that fired
	alerts        map[uint64]int // of those still open, their place in order
	failed        error
}

type outcome struct {
	device string
	alert  alert.Alert
}

// enact takes the rules of a record; none: the built-in ones.
func (b *backtest) enact(encoded []byte) {
	in := &doppelv1.RulesInput{}
	if len(encoded) == 0 {
		for _, r := range alert.Builtin() {
			in.Rules = append(in.Rules, codec.Rule(&r))
		}
	} else if err := proto.Unmarshal(encoded, in); err != nil {
		b.failed = fmt.Errorf("recorded rules: %w", err)
		return
	}
	in.Rules = slices.DeleteFunc(in.GetRules(), func(r *doppelv1.Rule) bool { return r.GetId() == b.rule.GetId() })
	b.without = b.compile(in)
	in.Rules = append(in.GetRules(), b.rule)
	b.with = b.compile(in)
}

func (b *backtest) compile(in *doppelv1.RulesInput) *alert.Set {
	encoded, err := ruleset.Encode(in)
	if err != nil {
		b.failed = err
		return nil
	}
	return b.host.compiler.Compile(encoded).Alerts
}

// step takes the record in the fold's event, which is the next of a twin.
func (b *backtest) step(t *twin.Twin) {
	ev := &b.fold.event
	if b.failed != nil {
		return
	}
	if !b.begun && ev.Now >= b.test.Start {
		b.begin()
	}
	set := b.without
	if b.begun {
		set = b.with
		// A tick later: what comes first, the time or the message, is then decided live, too.
		t.Elapse(ev.Now-wheelTick, set, &b.fx)
		b.note(t)
	}
	t.AddDuplicates(ev.Duplicates)
	t.Step(ev.Now, &ev.Input, set, &b.fx)
	if !b.begun {
		return
	}
	b.note(t)
	if b.samples += uint64(len(b.fx.Applied)); b.samples > backtestMost {
		b.failed = fmt.Errorf("%w: more than %d samples of one partition: test a shorter range or fewer devices", ErrTooMuch, backtestMost)
	}
}

// begin puts the rule in force.
func (b *backtest) begin() {
	b.begun = true
	review := &twin.Input{Kind: twin.KindReviewed, ReceivedAt: b.test.Start}
	b.fold.Each(func(t *twin.Twin) {
		t.Step(b.test.Start, review, b.without, &b.fx) // what a live rule of that id has open is not ours
		t.Step(b.test.Start, review, b.with, &b.fx)
		b.note(t)
	})
}

// end lets the time up to the end pass.
func (b *backtest) end() {
	if !b.begun {
		b.begin()
	}
	until := min(b.test.End, b.host.cfg.Clock())
	b.fold.Each(func(t *twin.Twin) {
		t.Elapse(until, b.with, &b.fx)
		b.note(t)
	})
}

// note keeps what the rule has given.
func (b *backtest) note(t *twin.Twin) {
	for i := range b.fx.Transitions {
		a := &b.fx.Transitions[i]
		if a.Rule != b.rule.GetId() {
			continue
		}
		if a.FireTime == 0 {
			continue // it may never
		}
		place, known := b.alerts[a.ID]
		if !known {
			if place = len(b.order); place == backtestFired {
				b.failed = fmt.Errorf("%w: the rule would fire more than %d times in one partition: test a shorter range or fewer devices", ErrTooMuch, backtestFired)
				return
			}
			b.alerts[a.ID] = place
			b.order = append(b.order, outcome{device: t.ID()})
		}
		if b.order[place].alert = *a; a.State == alert.Resolved {
			delete(b.alerts, a.ID)
		}
	}
}

func (b *backtest) fired() []*doppelv1.Alert {
	var all []*doppelv1.Alert
	for i := range b.order {
		all = append(all, codec.Alert(b.order[i].device, &b.order[i].alert))
	}
	return all
}
