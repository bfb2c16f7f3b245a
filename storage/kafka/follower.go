package kafka

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// follower is what was fetched of one partition and waits to be taken.
type follower struct {
	p      int32
	paused bool          // of tails.run alone
	ready  chan struct{} // the queue or err is worth a look

	mu    sync.Mutex
	at    int64 // offset behind what was queued
	queue [][]*kgo.Record
	bytes int // queued, and taken but not handled
	err   error
}

func (f *follower) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// push queues rs and returns the bytes waiting.
func (f *follower) push(rs []*kgo.Record) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(rs) > 0 && rs[0].Offset < f.at {
		rs = rs[1:]
	}
	if len(rs) == 0 || f.err != nil {
		return f.bytes
	}
	f.at = rs[len(rs)-1].Offset + 1
	f.queue = append(f.queue, rs)
	f.bytes += weigh(rs)
	f.signal()
	return f.bytes
}

// fail ends f behind what is queued.
func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.signal()
	}
}

// reset takes back a failure. The queue is empty then.
func (f *follower) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = nil
}

func (f *follower) signal() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// next waits for records, or for what ended them.
func (f *follower) next(ctx context.Context) ([]*kgo.Record, error) {
	for {
		f.mu.Lock()
		if len(f.queue) > 0 {
			rs := f.queue[0]
			f.queue = f.queue[1:]
			f.mu.Unlock()
			return rs, nil
		}
		err := f.err
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// shrink takes rs off the bytes waiting, and returns true when there is room again.
func (f *follower) shrink(rs []*kgo.Record) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.bytes
	f.bytes -= weigh(rs)
	return before > tailQueue/2 && f.bytes <= tailQueue/2
}

// weigh is about the memory of rs.
func weigh(rs []*kgo.Record) int {
	n := 0
	for _, r := range rs {
		n += len(r.Key) + len(r.Value) + 256
	}
	return n
}
