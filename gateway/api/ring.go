package api

import (
	"maps"
	"sync"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// place is where a transition stands in its partition's log.
type place struct {
	offset int64
	index  int32
}

func (a place) before(b place) bool {
	return a.offset < b.offset || a.offset == b.offset && a.index < b.index
}

// vector is a place per partition: all up to it is behind the reader. An absent partition: nothing
// of it was seen in this incarnation.
type vector map[int32]place

func (v vector) covers(p int32, at place) bool {
	seen, ok := v[p]
	return ok && !seen.before(at)
}

func (v vector) clone() vector {
	c := make(vector, len(v))
	maps.Copy(c, v)
	return c
}

// transition is one entry of the ring. alert is shared by all readers: nobody changes it.
type transition struct {
	partition int32
	at        place
	alert     *doppelv1.Alert
}

// transitions keeps the latest alert transitions in order of arrival, which within a partition is
// the order of its log. Readers go through it at their own pace; one that falls behind the ring's
// size has a gap.
type transitions struct {
	mu      sync.Mutex
	ring    []transition
	size    uint64
	next    uint64 // number of the next entry; entry n stands at n % size
	last    vector // newest place entered, per partition
	evicted vector // newest place overwritten, per partition
	armed   []*waiter
}

func newTransitions(size int) *transitions {
	return &transitions{size: uint64(size), last: vector{}, evicted: vector{}}
}

// add enters a transition and wakes those who wait. A place that is not behind the partition's
// newest was told before (its partition was restored in between) and is left out.
func (t *transitions) add(tr transition) {
	t.mu.Lock()
	if t.last.covers(tr.partition, tr.at) {
		t.mu.Unlock()
		return
	}
	t.last[tr.partition] = tr.at
	if t.next < t.size {
		t.ring = append(t.ring, tr)
	} else {
		slot := &t.ring[t.next%t.size]
		t.evicted[slot.partition] = slot.at
		*slot = tr
	}
	t.next++
	armed := t.armed
	t.armed = nil
	t.mu.Unlock()
	ringEach(armed)
}

// oldest is the number of the oldest entry. Caller holds mu.
func (t *transitions) oldest() uint64 {
	if t.next < t.size {
		return 0
	}
	return t.next - t.size
}

// head is the position behind the newest entry.
func (t *transitions) head() (uint64, vector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next, t.last.clone()
}

// resume is the position of a reader that has seen all up to v; false if some of what follows was
// overwritten.
func (t *transitions) resume(v vector) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, at := range t.evicted {
		if !v.covers(p, at) {
			return 0, false
		}
	}
	return t.oldest(), true
}

// read fills buf from position at on; false if what stood there was overwritten. If there is
// nothing, w is put up for the next transition.
func (t *transitions) read(buf []transition, at uint64, w *waiter) (n int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at < t.oldest() {
		return 0, false
	}
	for n < len(buf) && at < t.next {
		buf[n] = t.ring[at%t.size]
		n++
		at++
	}
	if n == 0 && w.armed.CompareAndSwap(false, true) {
		t.armed = append(t.armed, w)
	}
	return n, true
}

// forget takes w off the list of those who wait.
func (t *transitions) forget(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.armed {
		if other == w {
			t.armed = append(t.armed[:i:i], t.armed[i+1:]...)
			return
		}
	}
}
