package twin

import (
	"math"

	"github.com/doppel-iot/doppel/actors/sequence"
)

// admitted is the kind as which a quarantined twin takes an input; 0: it does not. It takes no data
// until a reset and only counts what is refused.
func (t *Twin) admitted(s *step, in *Input) Kind {
	switch in.Kind {
	case KindSample, KindStatus, KindReported:
		s.out.Outcome = s.out.refuse(Quarantined, "the twin's code panicked and it takes no input until it is reset")
	case KindRefused, KindReset, KindAnchor, KindAcknowledged, KindDesired, KindDeleted:
		return in.Kind
	case KindGap, KindTick, KindQuarantined, KindReviewed:
	}
	return 0
}

// stepReset lifts the quarantine, or makes the next sample begin a fresh numbering, whatever its number.
// Not both: a device that only made the twin panic goes on with its numbers, and what it sends again
// must be known as sent before. Before a fresh numbering, what was accepted and waits is applied first, in order, as nothing can come in front of
// it any more; the numbers it waited for count as missing. Everything else stays.
func (t *Twin) stepReset(s *step) {
	if t.quarantined {
		t.quarantined = false
		return
	}
	t.applyWaiting(s)
	t.numbers = sequence.Sequencer[*waiting]{}
	t.patches = nil
	if t.timed != nil { // repetitions are still known: what was accepted stays accepted once
		t.timed.last, t.timed.began = 0, false
	}
	if t.props != nil {
		t.props.forgetNumbers()
	}
	if t.status != nil { // the next one is newer, whatever its boot and session
		t.status.Status = Status{Online: t.status.Online}
	}
	t.book.Renumbered(s.rules, t.id, s.now, &s.out.Transitions)
}

// applyWaiting applies all that waits.
func (t *Twin) applyWaiting(s *step) {
	var missing uint64
	for boot, seq, ok := t.numbers.Lowest(); ok; boot, seq, ok = t.numbers.Lowest() {
		n, given := t.giveUp(s, boot, seq)
		if !given {
			break // cannot be: what is held waits for a gap
		}
		missing += n
	}
	t.countGap(s, missing)
	if t.timed != nil {
		t.releaseTimed(s, math.MaxInt64, nil)
	}
	for t.patches != nil && t.patches.numbers.Len() > 0 {
		t.passOver()
	}
}

// forgetNumbers leaves the properties ordered by arrival alone, so that patches of any number may
// overwrite them.
func (p *properties) forgetNumbers() {
	for i := range p.list {
		p.list[i].stamp = stamp{receivedAt: p.list[i].stamp.receivedAt}
	}
}
