package api

import (
	"slices"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// place is the cause of a transition in the changelog of its partition.
type place struct {
	offset int64
	index  int32
}

// nowhere is in front of every place.
var nowhere = place{offset: -1}

func (a place) before(b place) bool {
	return a.offset < b.offset || a.offset == b.offset && a.index < b.index
}

// mark is how far a reader has come in a partition: what doppel.alerts has there below next was seen,
// and of its transitions those up to at count no more.
type mark struct {
	next int64
	at   place
}

// vector has a mark of every partition.
type vector []mark

// fresh notes that a transition was passed, and says whether it is one that was not seen before.
// Only causes that grow count: a node that was late to learn that it owns a partition no more, or one
// that restored it, tells again what others told before (E1, E2).
func (v vector) fresh(t *transition) bool {
	m := &v[t.partition]
	m.next = max(m.next, t.next)
	if !m.at.before(t.at) {
		return false
	}
	m.at = t.at
	return true
}

// reaches says whether v has come as far as other everywhere.
func (v vector) reaches(other vector) bool {
	for p := range other {
		if v[p].next < other[p].next {
			return false
		}
	}
	return true
}

// transition is one entry of the ring. alert is shared by all readers: nobody changes it.
type transition struct {
	partition int32
	next      int64 // offset in doppel.alerts behind it
	at        place
	alert     *doppelv1.Alert
}

func transitionOf(t *host.Published) transition {
	return transition{partition: t.Partition, next: t.At + 1, at: place{t.Offset, int32(t.Index)}, alert: t.Alert}
}

// transitions keeps the latest alert transitions in the order in which they came out of doppel.alerts,
// which within a partition is that of their causes. Readers go through it at their own pace; one that
// falls behind reads the log by itself until it has caught up.
type transitions struct {
	mu      sync.Mutex
	ring    []transition
	size    uint64
	base    uint64 // number of the oldest entry
	next    uint64 // number of the next entry; entry n stands at n % size
	head    vector // of the tail that fills the ring
	covered vector // the ring has all that lies behind it
	armed   []*waiter
}

func newTransitions(size int) *transitions { return &transitions{size: uint64(size)} }

// restart empties the ring: what follows begins at v. Its readers look into the log.
func (t *transitions) restart(v vector) {
	t.mu.Lock()
	t.ring = nil
	t.next += t.size // behind every reader, also one that has seen all
	t.next -= t.next % t.size
	t.base = t.next
	t.head, t.covered = slices.Clone(v), slices.Clone(v)
	armed := t.armed
	t.armed = nil
	t.mu.Unlock()
	ringEach(armed)
}

// add enters a transition, unless it was told before, and wakes those who wait.
func (t *transitions) add(tr transition) {
	t.mu.Lock()
	if int(tr.partition) >= len(t.head) || !t.head.fresh(&tr) {
		t.mu.Unlock()
		return
	}
	if t.next-t.base < t.size {
		t.ring = append(t.ring, tr)
	} else {
		slot := &t.ring[t.next%t.size]
		t.covered[slot.partition] = mark{slot.next, slot.at}
		*slot = tr
		t.base++
	}
	t.next++
	armed := t.armed
	t.armed = nil
	t.mu.Unlock()
	ringEach(armed)
}

// reached notes that the tail has come to offsets, whatever stands in front of them.
func (t *transitions) reached(offsets []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, next := range offsets {
		t.head[p].next = max(t.head[p].next, next)
	}
}

// behind is the position behind the newest entry, and how far the tail has come there.
func (t *transitions) behind() (uint64, vector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next, slices.Clone(t.head)
}

// resume is a position for a reader that has come as far as v, who skips what it has seen; false if
// the ring no longer has all that follows.
func (t *transitions) resume(v vector) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !v.reaches(t.covered) {
		return 0, false
	}
	if v.reaches(t.head) {
		return t.next, true
	}
	return t.base, true
}

// read fills buf from position at on; false if what stood there was overwritten. If there is
// nothing, w is put up for the next transition.
func (t *transitions) read(buf []transition, at uint64, w *waiter) (n int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at < t.base {
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
