package twin

import (
	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/sequence"
)

// step is what one Step hands down.
type step struct {
	now   int64
	rules *alert.Set
	out   *Effects
	base  baseline.Config

	arrived bool // the device is there (again)
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
	kind, before := in.Kind, standing{t.DesiredVersion(), t.reportedVersion}
	switch {
	case t.Deleted():
		kind = t.buried(&s, in)
	case t.quarantined:
		kind = t.admitted(&s, in)
	}
	switch kind {
	case KindSample:
		out.Outcome = t.stepSample(&s, in)
	case KindRefused:
		t.stepRefused(&s, &in.Refused)
		out.Outcome = Applied
	case KindGap:
		out.Outcome = t.stepGap(&s, &in.Gap)
	case KindTick:
		out.Outcome = t.stepTick(&s)
	case KindStatus:
		out.Outcome = t.stepStatus(&s, in)
	case KindReported:
		out.Outcome = t.stepReported(&s, in)
	case KindQuarantined:
		t.quarantined = true
		out.Outcome = Applied
	case KindReset:
		t.stepReset(&s)
		out.Outcome = Applied
	case KindReviewed:
		out.Outcome = t.stepReviewed(&s)
	case KindAnchor: // for the log's sake alone
		out.Outcome = Applied
		return
	case KindAcknowledged:
		out.Outcome = t.stepAcknowledged(&s, in)
	case KindDesired:
		out.Outcome = t.stepDesired(&s, in)
	case KindDeleted:
		out.Outcome = t.stepDeleted(&s)
	}
	if out.Outcome.Logged() {
		t.version++
		if !t.Deleted() {
			t.evaluate(&s)
			t.settle(&s, before)
		}
	}
}

// stepRefused counts dead letters; a numbered one takes its place in the order.
func (t *Twin) stepRefused(s *step, r *Refused) {
	t.counters.DeadLettered += uint64(max(r.Count, 1))
	if t.quarantined {
		return
	}
	t.release(s)
	switch {
	case !r.Numbered || !legal(r.Boot, r.Seq):
	case r.Reason == StaleBoot: // it had no place
		t.noteStaleBoot(s, r)
	default:
		if wasMissing := t.numbers.Refuse(r.Boot, r.Seq, s.now); wasMissing {
			t.foundMissing()
		}
		t.drain(s)
	}
	t.book.Refused(s.rules, t.id, s.now, &s.out.Transitions)
}

// noteStaleBoot lets the rules see that numbering went back, unless a reset has made it good meanwhile.
func (t *Twin) noteStaleBoot(s *step, r *Refused) {
	if t.numbers.Place(r.Boot, r.Seq) != sequence.Stale {
		return
	}
	current, _, _ := t.numbers.Boots()
	t.book.WentBack(s.rules, t.id, s.now, alert.Setback{Current: current, Boot: r.Boot, Seq: r.Seq}, &s.out.Transitions)
}

// stepGap gives up on missing numbers and applies what waited behind them.
func (t *Twin) stepGap(s *step, g *Gap) Outcome {
	missing, given := t.giveUp(s, g.Boot, g.UpTo)
	if !given {
		return Unchanged
	}
	t.countGap(s, missing)
	t.release(s)
	return Applied
}

// giveUp passes over the missing numbers of a boot below upTo and applies what waited behind them.
// given: there was something to pass over, if only what lies before the start.
func (t *Twin) giveUp(s *step, boot, upTo uint64) (missing uint64, given bool) {
	for {
		n, ok := t.numbers.Gap(boot, upTo)
		if !ok {
			return missing, given
		}
		missing, given = missing+n, true
		t.drain(s)
	}
}

// countGap accounts for numbers given up on.
func (t *Twin) countGap(s *step, missing uint64) {
	if missing == 0 {
		return
	}
	t.counters.Gaps++
	t.counters.Missing += missing
	t.book.Gap(s.rules, t.id, s.now, missing, &s.out.Transitions)
}

// stepTick does what is due.
func (t *Twin) stepTick(s *step) Outcome {
	outcome := Unchanged
	if t.release(s) {
		outcome = Applied
	}
	if t.forget(s) {
		return Applied
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
	timed := t.timed != nil && t.releaseTimed(s, s.now, nil)
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
	e.Outcome, e.Reason, e.Detail, e.Field, e.Tell = Unchanged, "", "", "", false
	e.Applied, e.Transitions = e.Applied[:0], e.Transitions[:0]
	e.readings = e.readings[:0]
}

func (e *Effects) refuse(r Reason, detail string) Outcome {
	e.Reason, e.Detail = r, detail
	return Refuse
}
