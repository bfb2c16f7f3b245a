package twin

import (
	"fmt"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/sequence"
)

// maxNumber is the largest boot and seq a device may use.
const maxNumber = math.MaxInt64

// waiting is an accepted sample that is not applied yet.
type waiting struct {
	sample     Sample // Time is resolved; its slices are the twin's own
	receivedAt int64
	due        int64 // when an unnumbered one is released
	size       int   // bytes reserved for its reported properties
}

func legal(boot, seq uint64) bool { return seq >= 1 && seq <= maxNumber && boot <= maxNumber }

func (t *Twin) stepSample(s *step, in *Input) Outcome {
	sm := in.Sample // a copy: the input stays the caller's
	if !sm.Timed {
		sm.Time = in.ReceivedAt
	}
	switch {
	case sm.Numbered:
		return t.stepNumbered(s, &sm, in.ReceivedAt)
	case sm.Timed:
		return t.stepTimed(s, &sm, in.ReceivedAt)
	default:
		return t.stepArriving(s, &sm, in.ReceivedAt)
	}
}

// stepNumbered is the table of contract section 2.
func (t *Twin) stepNumbered(s *step, sm *Sample, receivedAt int64) Outcome {
	if !legal(sm.Boot, sm.Seq) {
		return s.out.refuse(NumberRange, fmt.Sprintf("boot %d, seq %d: seq counts from 1, both are at most 2^63-1", sm.Boot, sm.Seq))
	}
	place := t.numbers.Place(sm.Boot, sm.Seq)
	if place == sequence.Taken {
		return t.duplicate()
	}
	if place == sequence.Stale {
		return s.out.refuse(StaleBoot, t.staleDetail(sm.Boot))
	}
	a, refused := t.admit(s, sm, receivedAt, place == sequence.Ahead)
	if refused {
		return Refuse
	}
	t.release(s)
	t.accept(s, sm, receivedAt, place != sequence.Behind, a)
	switch place {
	case sequence.Ahead:
		t.numbers.Hold(sm.Boot, sm.Seq, s.now, t.wait(sm, receivedAt, a))
		return Held
	case sequence.Behind:
		if t.numbers.Accept(sm.Boot, sm.Seq) {
			t.foundMissing()
		}
		t.applyLate(s, sm, receivedAt)
		return Late
	default:
		t.numbers.Accept(sm.Boot, sm.Seq)
		t.apply(s, sm, receivedAt, true)
		t.drain(s)
		return Applied
	}
}

// stepArriving takes a sample with neither number nor time as it comes.
func (t *Twin) stepArriving(s *step, sm *Sample, receivedAt int64) Outcome {
	a, refused := t.admit(s, sm, receivedAt, false)
	if refused {
		return Refuse
	}
	t.release(s)
	t.accept(s, sm, receivedAt, true, a)
	t.apply(s, sm, receivedAt, true)
	return Applied
}

// admission is what admit found out for accept and wait.
type admission struct {
	newNames int
	size     int
}

// admit decides whether a sample may enter; it changes nothing but the effects. waits says that it
// will not be applied at once.
func (t *Twin) admit(s *step, sm *Sample, receivedAt int64, waits bool) (a admission, refused bool) {
	a.newNames = t.newNames(sm.Readings)
	if a.newNames > 0 && len(t.metrics)+a.newNames > MaxMetrics {
		s.out.refuse(TooManyMetrics, fmt.Sprintf("metrics: %d new names on top of %d, a twin has at most %d: send fewer, or reset the twin",
			a.newNames, len(t.metrics), MaxMetrics))
		return a, true
	}
	if len(sm.Reported) > 0 {
		var ok bool
		if a.size, ok = t.admitPatch(s, sm.Reported, sampleStamp(sm, receivedAt), waits); !ok {
			return a, true
		}
	}
	return a, false
}

// accept does what every accepted sample does, whatever its place. It leaves the sample's content in
// the scratch for apply.
func (t *Twin) accept(s *step, sm *Sample, receivedAt int64, onTime bool, a admission) {
	if t.Deleted() {
		t.revive(s)
	}
	t.register(sm.Readings, a.newNames)
	if receivedAt != t.lastData { // the first sample of its message
		t.book.Seen(s.rules, t.id, s.now, &s.out.Transitions)
		t.noteStale(s)
	}
	t.lastData = receivedAt
	t.lastSeen = max(t.lastSeen, receivedAt)
	if onTime {
		t.noteData(s, receivedAt)
	}
	s.out.scratch = appendContent(s.out.scratch[:0], sm)
	t.setDigest += chain(0, s.out.scratch)
}

// wait makes the twin's own copy of a sample.
func (t *Twin) wait(sm *Sample, receivedAt int64, a admission) *waiting {
	w := &waiting{sample: *sm, receivedAt: receivedAt, size: a.size}
	w.sample.Readings = slices.Clone(sm.Readings)
	w.sample.Reported = slices.Clone(sm.Reported)
	t.reserve(a.size)
	t.counters.Held++
	return w
}

// applyHeld applies a sample that waited.
func (t *Twin) applyHeld(s *step, w *waiting, own bool) {
	t.reserve(-w.size)
	s.out.scratch = appendContent(s.out.scratch[:0], &w.sample)
	t.apply(s, &w.sample, w.receivedAt, own)
}

// apply makes a sample the latest. Its content is in the scratch.
func (t *Twin) apply(s *step, sm *Sample, receivedAt int64, own bool) {
	t.digest = chain(t.digest, s.out.scratch)
	t.counters.Applied++
	if sm.Numbered {
		t.boot, t.seq = sm.Boot, sm.Seq
	}
	from := len(s.out.readings)
	i := 0
	for _, r := range sm.Readings {
		for t.metrics[i].name != r.Name {
			i++
		}
		t.read(s, &t.metrics[i], sm, r.Value)
	}
	s.out.add(sm, from, AppliedSample{Own: own, Count: t.counters.Applied})
	if len(sm.Reported) > 0 {
		t.merge(sm.Reported, sampleStamp(sm, receivedAt))
	}
}

// read scores one value, makes it the latest and lets the rules see it.
func (t *Twin) read(s *step, m *metric, sm *Sample, value float64) {
	score := m.base.Step(&s.base, sm.Time, value)
	z, hold := math.NaN(), math.NaN()
	if score.OK {
		z, hold = score.Z, score.Score
	}
	// Numbers outrank times; among unnumbered samples the highest time is the latest.
	if sm.Numbered || !m.known || sm.Time >= m.time {
		m.known, m.value, m.time, m.z, m.score = true, value, sm.Time, z, hold
	}
	s.out.readings = append(s.out.readings, ScoredReading{Name: m.name, Value: value, Z: z, Score: hold})
	o := &s.out.reading // not on the stack: rules may look at it through an interface
	*o = alert.Observation{
		Metric: m.name, Value: value, Scored: score.OK, Plain: score.Plain, Score: score.Score,
		Stats: m.base.Before(&s.base), Time: sm.Time, Now: s.now,
	}
	if sm.Numbered {
		o.Boot, o.Seq = sm.Boot, sm.Seq
	}
	t.book.Sample(s.rules, t.id, o, &s.out.Transitions)
}

// applyLate records a sample behind the order: neither latest values nor baselines nor the digest
// may depend on it.
func (t *Twin) applyLate(s *step, sm *Sample, receivedAt int64) {
	t.counters.Late++
	from := len(s.out.readings)
	for _, r := range sm.Readings {
		s.out.readings = append(s.out.readings, ScoredReading{Name: r.Name, Value: r.Value, Z: math.NaN(), Score: math.NaN()})
	}
	s.out.add(sm, from, AppliedSample{Own: true, Late: true, Count: t.counters.Applied + t.counters.Late})
	if len(sm.Reported) > 0 {
		t.merge(sm.Reported, sampleStamp(sm, receivedAt))
	}
}

// add lists a sample whose readings stand in e.readings from index from on.
func (e *Effects) add(sm *Sample, from int, a AppliedSample) {
	a.Numbered, a.Time, a.Reported = sm.Numbered, sm.Time, sm.Reported
	if sm.Numbered {
		a.Boot, a.Seq = sm.Boot, sm.Seq
	}
	a.Readings = e.readings[from:len(e.readings):len(e.readings)]
	e.Applied = append(e.Applied, a)
}

func (t *Twin) duplicate() Outcome {
	t.counters.Duplicate++
	t.duplicates++
	return Duplicate
}

func (t *Twin) staleDetail(boot uint64) string {
	current, previous, known := t.numbers.Boots()
	if known < 2 {
		return fmt.Sprintf("boot %d is before the current boot %d: reset the twin to accept its numbering anew", boot, current)
	}
	return fmt.Sprintf("boot %d is neither the current boot %d nor the previous one %d: reset the twin to accept its numbering anew",
		boot, current, previous)
}
