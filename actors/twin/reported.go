package twin

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/sequence"
)

// patches orders the patches of a device that numbers them, apart from its samples.
//
// Unlike with samples a missing number is passed over by time alone, on the next logged input: a
// patch that comes after that still applies to every key that nothing newer has written.
type patches struct {
	numbers sequence.Sequencer[*heldPatch]
}

type heldPatch struct {
	text       []byte
	receivedAt int64
	size       int
}

// due is when a missing number is passed over.
func (q *patches) due() int64 {
	n := q.numbers.Len()
	if n == 0 {
		return math.MaxInt64
	}
	return SettledLimits().due(q.numbers.Oldest(), n)
}

// stepReported takes a merge patch.
func (t *Twin) stepReported(s *step, in *Input) Outcome {
	if in.Reported.Numbered {
		return t.stepPatch(s, in)
	}
	st := stamp{receivedAt: in.ReceivedAt}
	if _, ok := t.admitPatch(s, in.Reported.Patch, st, false); !ok {
		return Refuse
	}
	if t.Deleted() {
		if in.ReceivedAt <= t.death.at { // of the life that is over
			return Unchanged
		}
		t.revive(s)
	}
	touched, empty := t.merge(in.Reported.Patch, st)
	if !touched && !empty {
		return Unchanged // older in every key, or the same message again
	}
	t.lastSeen = max(t.lastSeen, in.ReceivedAt)
	t.release(s)
	return Applied
}

// stepPatch takes a numbered merge patch.
func (t *Twin) stepPatch(s *step, in *Input) Outcome {
	r := &in.Reported
	st := stamp{receivedAt: in.ReceivedAt, boot: r.Boot, seq: r.Seq, stream: byPatch}
	if !legal(r.Boot, r.Seq) {
		return s.out.refuse(NumberRange, fmt.Sprintf("reported boot %d, seq %d: seq counts from 1, both are at most 2^63-1", r.Boot, r.Seq))
	}
	place := t.placePatch(r.Boot, r.Seq)
	if place == sequence.Taken {
		return Duplicate // not a sample: not in Counters
	}
	if place == sequence.Stale {
		return s.out.refuse(StaleBoot, fmt.Sprintf("reported boot %d is before the previous boot of reported: reset the twin to accept its numbering anew", r.Boot))
	}
	size, ok := t.admitPatch(s, r.Patch, st, place == sequence.Ahead)
	if !ok {
		return Refuse
	}
	if t.Deleted() {
		t.revive(s)
	}
	if t.patches == nil {
		t.patches = &patches{}
	}
	t.lastSeen = max(t.lastSeen, in.ReceivedAt)
	defer t.release(s)
	switch place {
	case sequence.Ahead:
		t.reserve(size)
		t.patches.numbers.Hold(r.Boot, r.Seq, s.now, &heldPatch{text: slices.Clone(r.Patch), receivedAt: in.ReceivedAt, size: size})
		return Held
	case sequence.Behind:
		t.patches.numbers.Accept(r.Boot, r.Seq)
		t.merge(r.Patch, st)
		return Late
	default:
		t.patches.numbers.Accept(r.Boot, r.Seq)
		t.merge(r.Patch, st)
		t.drainPatches()
		return Applied
	}
}

func (t *Twin) placePatch(boot, seq uint64) sequence.Place {
	if t.patches == nil {
		return (&sequence.Sequencer[*heldPatch]{}).Place(boot, seq)
	}
	return t.patches.numbers.Place(boot, seq)
}

// sampleStamp says how new the patch inside a sample is.
func sampleStamp(sm *Sample, receivedAt int64) stamp {
	st := stamp{receivedAt: receivedAt}
	switch {
	case sm.Numbered:
		st.stream, st.boot, st.seq = bySample, sm.Boot, sm.Seq
	case sm.Timed:
		st.stream, st.seq = byTime, uint64(max(sm.Time, 0))
	}
	return st
}

// merge applies a patch that admitPatch let in.
func (t *Twin) merge(text []byte, st stamp) (touched, empty bool) {
	patch, err := decodeObject(text)
	if err != nil || len(patch) == 0 {
		return false, err == nil
	}
	if t.props == nil {
		t.props = &properties{}
	}
	touched, changed := t.props.commit(t.props.plan(patch, st))
	if changed {
		t.reportedVersion++
	}
	return touched, false
}

// admitPatch decides whether a patch may enter; it changes nothing but the effects. size is what one
// that waits must reserve.
func (t *Twin) admitPatch(s *step, text []byte, st stamp, waits bool) (size int, ok bool) {
	patch, err := decodeObject(text)
	if err != nil {
		s.out.refuse(NotDecodable, "reported: "+err.Error())
		return 0, false
	}
	var none properties
	p := t.props
	if p == nil {
		p = &none
	}
	size = len(appendCanonical(nil, patch))
	room := maxReported - p.size - p.reserved
	if size <= room {
		return size, true
	}
	// Replacing needs less room than adding; for one that waits nobody knows yet what it replaces.
	if !waits && p.growth(p.plan(patch, st)) <= room {
		return size, true
	}
	s.out.refuse(TooLarge, fmt.Sprintf("reported: %d bytes on top of %d, a twin keeps at most %d: remove properties first", size, p.size+p.reserved, maxReported))
	return 0, false
}

// reserve keeps room for patches that wait.
func (t *Twin) reserve(n int) {
	if n == 0 {
		return
	}
	if t.props == nil {
		t.props = &properties{}
	}
	t.props.reserved += n
}

func (t *Twin) drainPatches() {
	for {
		boot, seq, h, ok := t.patches.numbers.Next()
		if !ok {
			return
		}
		t.reserve(-h.size)
		t.merge(h.text, stamp{receivedAt: h.receivedAt, boot: boot, seq: seq, stream: byPatch})
	}
}

// releasePatches passes over the missing numbers for which waiting is over.
func (t *Twin) releasePatches(s *step) (released bool) {
	for ; t.patches.due() <= s.now; released = true {
		t.passOver()
	}
	return released
}

// passOver gives up on the numbers in front of the lowest patch that waits.
func (t *Twin) passOver() {
	boot, seq, _ := t.patches.numbers.Lowest()
	t.patches.numbers.Gap(boot, seq)
	t.drainPatches()
}

func (h *heldPatch) appendState(b []byte) []byte {
	b = appendText(b, string(h.text))
	return binary.LittleEndian.AppendUint64(b, uint64(h.receivedAt))
}
