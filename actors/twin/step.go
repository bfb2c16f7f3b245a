package twin

import (
	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/baseline"
)

// step is what one Step hands down.
type step struct {
	now   int64
	rules *alert.Set
	out   *Effects
	base  baseline.Config
}

// Step takes one input at now, which must never run backwards from Step to Step, under the rules in
// force. With Unchanged, Duplicate and Refuse the twin stays as it was, but for the count of
// duplicates; everything else must be logged, and Step with the same arguments on an equal twin gives
// the same again.
func (t *Twin) Step(now int64, in *Input, rules *alert.Set, out *Effects) {
	out.reset()
	if rules == nil {
		rules = &alert.Set{} // no rules
	}
	s := step{now: now, rules: rules, out: out, base: baseline.Default()}
	switch in.Kind {
	case KindSample:
		out.Outcome = t.stepSample(&s, in)
	case KindRefused:
		out.Outcome = t.stepRefused(&s, &in.Refused)
	case KindGap:
		out.Outcome = t.stepGap(&s, &in.Gap)
	case KindTick:
		out.Outcome = t.stepTick(&s)
	case KindStatus:
		out.Outcome = t.stepStatus(&s, in)
	case KindReported:
		out.Outcome = t.stepReported(&s, in)
	}
	if out.Outcome.Logged() {
		t.version++
	}
}

// stepRefused counts dead letters; a numbered one takes its place in the order.
func (t *Twin) stepRefused(s *step, r *Refused) Outcome {
	t.release(s)
	t.counters.DeadLettered += uint64(max(r.Count, 1))
	if r.Numbered && legal(r.Boot, r.Seq) {
		if wasMissing := t.numbers.Refuse(r.Boot, r.Seq, s.now); wasMissing {
			t.counters.Missing--
		}
		t.drain(s)
	}
	return Applied
}

// stepGap gives up on missing numbers and applies what waited behind them.
func (t *Twin) stepGap(s *step, g *Gap) Outcome {
	outcome, missing := Unchanged, uint64(0)
	for {
		n, ok := t.numbers.Gap(g.Boot, g.UpTo)
		if !ok {
			break
		}
		outcome, missing = Applied, missing+n
		t.drain(s)
	}
	if outcome == Unchanged {
		return Unchanged
	}
	if missing > 0 {
		t.counters.Gaps++
		t.counters.Missing += missing
		t.book.Gap(s.rules, t.id, s.now, missing, &s.out.Transitions)
	}
	t.release(s)
	return Applied
}

// stepTick does what is due.
func (t *Twin) stepTick(s *step) Outcome {
	outcome := Unchanged
	if t.release(s) {
		outcome = Applied
	}
	if due := t.book.Due(); due != 0 && due <= s.now {
		t.book.Tick(s.rules, t.id, s.now, &s.out.Transitions)
		t.noteStale(s)
		outcome = Applied
	}
	return outcome
}

// release applies what waits for a moment that has come, and reports whether there was anything.
// Every input that will be logged does it.
func (t *Twin) release(s *step) bool {
	timed := t.timed != nil && t.releaseTimed(s, nil)
	patched := t.patches != nil && t.releasePatches(s)
	return timed || patched
}

// drain applies the held samples that have become in order.
func (t *Twin) drain(s *step) {
	for {
		_, _, w, ok := t.numbers.Next()
		if !ok {
			return
		}
		t.counters.Held--
		t.applyHeld(s, w, false)
	}
}

func (e *Effects) reset() {
	e.Outcome, e.Reason, e.Detail = Unchanged, "", ""
	e.Applied, e.Transitions = e.Applied[:0], e.Transitions[:0]
	e.readings = e.readings[:0]
}

func (e *Effects) refuse(r Reason, detail string) Outcome {
	e.Reason, e.Detail = r, detail
	return Refuse
}
