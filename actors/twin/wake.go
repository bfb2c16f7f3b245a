package twin

import (
	"math"
	"time"
)

// Limits say for how long, and how many, samples may be held before the owner gives up on the
// numbers in front of them.
type Limits struct {
	Hold time.Duration
	Held int64
}

// SettledLimits hold while no messages of the partition are known to be stranded.
func SettledLimits() Limits { return Limits{Hold: 500 * time.Millisecond, Held: 64} }

// UnsettledLimits hold otherwise. Beyond them a gap is forced, whatever stands in its way.
func UnsettledLimits() Limits { return Limits{Hold: 60 * time.Second, Held: 1024} }

func (l Limits) due(oldest int64, held int) int64 {
	if int64(held) > l.Held {
		return oldest
	}
	return oldest + int64(l.Hold)
}

// Due is when the owner should ask Wake with SettledLimits, unix nanoseconds; 0: no need.
func (t *Twin) Due() int64 { return t.DueWithin(SettledLimits()) }

// DueWithin is when the owner should ask Wake with these limits, unix nanoseconds; 0: no need. It
// may lie in the past.
func (t *Twin) DueWithin(lim Limits) int64 {
	if t.quarantined {
		return 0
	}
	due := t.tickDue()
	if n := t.numbers.Len(); n > 0 {
		due = min(due, lim.due(t.numbers.Oldest(), n))
	}
	if due == math.MaxInt64 {
		return 0
	}
	return due
}

// HeldSince is when the longest waiting of the numbered samples began to wait, unix nanoseconds; 0: none
// waits. The place of a refused one waits, too.
func (t *Twin) HeldSince() int64 {
	if t.numbers.Len() == 0 {
		return 0
	}
	return t.numbers.Oldest()
}

// Wake says which input the owner should log at now, if any: a gap before a tick. It changes
// nothing. A gap also needs the barrier of protocol rule P2, unless it is Forced; ask again behind
// the barrier, as the held samples may have changed.
func (t *Twin) Wake(now int64, lim Limits) (Input, bool) {
	if t.quarantined {
		return Input{}, false
	}
	if n := t.numbers.Len(); n > 0 && lim.due(t.numbers.Oldest(), n) <= now {
		boot, seq, _ := t.numbers.Lowest()
		forced := UnsettledLimits().due(t.numbers.Oldest(), n) <= now
		return Input{Kind: KindGap, ReceivedAt: now, Gap: Gap{Boot: boot, UpTo: seq, Forced: forced}}, true
	}
	if t.tickDue() <= now {
		return Input{Kind: KindTick, ReceivedAt: now}, true
	}
	return Input{}, false
}

// tickDue is when a tick finds something to do; MaxInt64: never.
func (t *Twin) tickDue() int64 {
	due := int64(math.MaxInt64)
	if d := t.book.Due(); d != 0 {
		due = d
	}
	if t.timed != nil {
		due = min(due, t.timed.due())
	}
	if d := t.forgetDue(); d != 0 {
		due = min(due, d)
	}
	if t.patches != nil {
		due = min(due, t.patches.due())
	}
	return due
}
