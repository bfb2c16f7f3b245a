package twin

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

const (
	timedHold = 500 * time.Millisecond // how long a sample waits for ones with earlier times
	maxTimed  = 1024                   // how many wait at most
	maxRecent = 128                    // how many accepted samples a repetition is looked for in
)

// timed orders the samples of an unnumbered device by their times.
type timed struct {
	held   []*waiting // falling time; of equal times the later accepted first
	first  int64      // the earliest due of held
	last   int64      // time of the latest applied
	began  bool       // last is set
	recent []uint64   // hashes of accepted samples, a ring once it has maxRecent
	oldest int        // the ring's oldest
}

// due is when something must be released.
func (q *timed) due() int64 {
	if len(q.held) == 0 {
		return math.MaxInt64
	}
	return q.first
}

// stepTimed takes a sample without number but with a time.
func (t *Twin) stepTimed(s *step, sm *Sample, receivedAt int64) Outcome {
	s.out.scratch = appendContent(s.out.scratch[:0], sm)
	hash := xxhash.Sum64(append(s.out.scratch, sm.Reported...))
	if t.timed != nil && slices.Contains(t.timed.recent, hash) {
		return t.duplicate()
	}
	a, refused := t.admit(s, sm, receivedAt, true)
	if refused {
		return Refuse
	}
	if t.timed == nil {
		t.timed = &timed{}
	}
	q := t.timed
	t.release(s)
	late := q.began && sm.Time < q.last
	t.accept(s, sm, receivedAt, !late, a)
	q.remember(hash)
	if late {
		t.applyLate(s, sm, receivedAt)
		return Late
	}
	w := t.wait(sm, receivedAt, a)
	// The first node's clock may be ahead of this one's; nobody waits longer for that.
	w.due = min(receivedAt, s.now) + int64(timedHold)
	q.insert(w)
	t.releaseTimed(s, s.now, w)
	if slices.Contains(q.held, w) {
		return Held
	}
	return Applied
}

// releaseTimed applies, in order of time, everything up to the latest sample that is due by then, and
// what is too many.
func (t *Twin) releaseTimed(s *step, by int64, own *waiting) bool {
	q := t.timed
	if q.due() > by && len(q.held) <= maxTimed {
		return false
	}
	keep := slices.IndexFunc(q.held, func(w *waiting) bool { return w.due <= by })
	if keep < 0 {
		keep = len(q.held)
	}
	keep = min(keep, maxTimed)
	for i := len(q.held) - 1; i >= keep; i-- {
		w := q.held[i]
		q.held[i] = nil
		q.last, q.began = w.sample.Time, true
		t.counters.Held--
		t.applyHeld(s, w, w == own)
	}
	q.held = q.held[:keep]
	q.first = math.MaxInt64
	for _, w := range q.held {
		q.first = min(q.first, w.due)
	}
	return true
}

func (q *timed) insert(w *waiting) {
	i, _ := slices.BinarySearchFunc(q.held, w.sample.Time, func(h *waiting, at int64) int {
		if h.sample.Time > at {
			return -1
		}
		return 1
	})
	if len(q.held) == 0 || w.due < q.first {
		q.first = w.due
	}
	q.held = slices.Insert(q.held, i, w)
}

func (q *timed) remember(hash uint64) {
	if len(q.recent) < maxRecent {
		q.recent = append(q.recent, hash)
		return
	}
	q.recent[q.oldest] = hash
	q.oldest = (q.oldest + 1) % maxRecent
}

func (q *timed) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(q.last))
	b = appendBool(b, q.began)
	b = le.AppendUint64(b, uint64(len(q.recent)))
	for i := range q.recent {
		b = le.AppendUint64(b, q.recent[(q.oldest+i)%len(q.recent)])
	}
	b = le.AppendUint64(b, uint64(len(q.held)))
	for _, w := range q.held {
		b = w.appendState(b)
	}
	return b
}
