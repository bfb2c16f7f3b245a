package api

import "sync/atomic"

// ringInline is how many subscribers a partition wakes itself (about 0.1 µs each).
const ringInline = 16

// waiter is a subscriber's bell. armed spares the channel operation while nobody listens.
type waiter struct {
	armed atomic.Bool
	bell  chan struct{}
}

func newWaiter() *waiter { return &waiter{bell: make(chan struct{}, 1)} }

// ring wakes the subscriber if it waits; it never blocks.
func (w *waiter) ring() {
	if w.armed.Load() && w.armed.CompareAndSwap(true, false) {
		select {
		case w.bell <- struct{}{}:
		default:
		}
	}
}

// ringEach wakes many. Beyond a few it is done on a goroutine of its own, which ends at once, so
// that a partition does not pay for its subscribers.
func ringEach(ws []*waiter) {
	if len(ws) > ringInline {
		go ringNow(ws)
		return
	}
	ringNow(ws)
}

func ringNow(ws []*waiter) {
	for _, w := range ws {
		w.ring()
	}
}
