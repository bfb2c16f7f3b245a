package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// lane is one partition of the changelog: its unanswered records in the order of Append, and its limit.
//
// The client calls the promises of a partition in the order of Produce for all it has buffered, failed
// ones included (it fails whole batches, oldest first, and one goroutine at a time runs promises). But
// what it refuses to buffer, a record too large or one after Close, is answered at once, before older
// records in flight. So a lane does not rely on it: an answer waits here for those before it.
type lane struct {
	mu         sync.Mutex
	head, tail *slot
	free       *slot
	unanswered int  // records whose Ack has not returned
	answering  bool // a goroutine is handing out answers: it alone calls Ack
	waiting    int  // Appends blocked for room
	room       chan struct{}
	idle       chan struct{} // closed when unanswered becomes 0; nil: nobody waits for that
}

// slot is one record between Append and its acknowledgement. The record leads back to it through its
// Context, which the client only asks whether it can be cancelled (it cannot: a record of which the
// broker may already know cannot be taken back without a hole in the producer's sequence).
type slot struct {
	context.Context //nolint:containedctx // never ends; it is the way back from the record

	rec    kgo.Record
	lane   *lane
	next   *slot // in the lane, or in its free list
	acks   host.Acks
	n      uint64
	since  time.Time // it was appended
	offset int64
	err    error
	done   bool
}

// enter waits until the lane has room.
func (ln *lane) enter(ctx context.Context, limit int, closed <-chan struct{}) error {
	for {
		select {
		case <-closed:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		ln.mu.Lock()
		if ln.unanswered < limit {
			ln.wake()
			ln.mu.Unlock()
			return nil
		}
		ln.waiting++
		ln.mu.Unlock()

		select {
		case <-ln.room:
		case <-ctx.Done():
		case <-closed:
		}
		ln.mu.Lock()
		ln.waiting--
		ln.mu.Unlock()
	}
}

// wake lets one blocked Append look again. Under mu.
func (ln *lane) wake() {
	if ln.waiting > 0 {
		select {
		case ln.room <- struct{}{}:
		default:
		}
	}
}

// queue appends slots for recs and returns the first of them.
func (ln *lane) queue(recs []host.Record, acks host.Acks) *slot {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	var first *slot
	now := time.Now()
	for i := range recs {
		s := ln.push(recs[i].N, acks, now)
		if i == 0 {
			first = s
		}
	}
	return first
}

// refuse answers recs with err, behind what is in flight.
func (ln *lane) refuse(recs []host.Record, acks host.Acks, err error) {
	ln.mu.Lock()
	now := time.Now()
	for i := range recs {
		s := ln.push(recs[i].N, acks, now)
		s.offset, s.err, s.done = -1, err, true
	}
	ln.mu.Unlock()
	go ln.hand() // not here: the caller of Append need not expect its Acks on its own stack
}

// push takes a slot into the queue. Under mu.
func (ln *lane) push(n uint64, acks host.Acks, now time.Time) *slot {
	s := ln.free
	if s == nil {
		s = &slot{Context: context.Background(), lane: ln}
	} else {
		ln.free = s.next
	}
	s.next, s.n, s.acks, s.since, s.done = nil, n, acks, now, false
	if ln.tail == nil {
		ln.head = s
	} else {
		ln.tail.next = s
	}
	ln.tail = s
	ln.unanswered++
	return s
}

// answer notes what became of s and hands out what can be.
func (ln *lane) answer(s *slot, offset int64, err error) {
	ln.mu.Lock()
	s.offset, s.err, s.done = offset, err, true
	ln.mu.Unlock()
	ln.hand()
}

// hand calls Ack for the answered records at the head.
func (ln *lane) hand() {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.answering {
		return // that goroutine looks at the head again before it stops
	}
	ln.answering = true
	for ln.head != nil && ln.head.done {
		s := ln.head
		if ln.head = s.next; ln.head == nil {
			ln.tail = nil
		}
		acks, n, offset, err := s.acks, s.n, s.offset, s.err
		s.rec.Key, s.rec.Value, s.acks, s.err = nil, nil, nil, nil
		s.next, ln.free = ln.free, s
		ln.mu.Unlock()
		acks.Ack(n, offset, err)
		ln.mu.Lock()
		ln.unanswered--
		ln.wake()
	}
	ln.answering = false
	if ln.unanswered == 0 && ln.idle != nil {
		close(ln.idle)
		ln.idle = nil
	}
}

// oldest is when the record was appended that waits longest; false: none waits.
func (ln *lane) oldest() (time.Time, bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.head == nil {
		return time.Time{}, false
	}
	return ln.head.since, true
}

// quiet returns a channel that is closed when nothing is unanswered.
func (ln *lane) quiet() <-chan struct{} {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.idle == nil {
		ln.idle = make(chan struct{})
	}
	c := ln.idle
	if ln.unanswered == 0 {
		close(c)
		ln.idle = nil
	}
	return c
}
