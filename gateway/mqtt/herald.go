package mqtt

import (
	"context"
	"sync"
	"time"
)

const (
	// heralds is how many desired messages are published at a time: each waits for its broker.
	heralds = 32
	// heraldTimeout bounds one publish.
	heraldTimeout = 10 * time.Second
)

// herald publishes {root}/{device}/desired, retained, with QoS 1. It implements host.Devices, whose partitions
// have a bounded number of messages here, and at most one for a device, so nothing has to be ordered or bounded
// here.
type herald struct {
	publisher Publisher
	topics    topics

	mu     sync.Mutex
	queue  []tidings
	wake   chan struct{} // has room for one
	closed bool
}

// tidings are what a device is told; payload nil: its retained message is taken away.
type tidings struct {
	device  string
	payload []byte
	done    func(error)
}

func newHerald(p Publisher, t topics) *herald {
	return &herald{publisher: p, topics: t, wake: make(chan struct{}, 1)}
}

// Desired implements host.Devices.
func (h *herald) Desired(device string, payload []byte, done func(error)) {
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.queue = append(h.queue, tidings{device, payload, done})
	}
	h.mu.Unlock()
	if closed {
		go done(ErrNotConnected)
		return
	}
	h.ring()
}

func (h *herald) ring() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends; what is left then was not published.
func (h *herald) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range heralds {
		wg.Go(func() { h.work(ctx) })
	}
	wg.Wait()
	h.mu.Lock()
	left := h.queue
	h.queue, h.closed = nil, true
	h.mu.Unlock()
	for _, t := range left {
		t.done(ErrNotConnected)
	}
}

func (h *herald) work(ctx context.Context) {
	for {
		t, ok := h.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-h.wake:
			}
			continue
		}
		t.done(h.publish(ctx, &t))
		if ctx.Err() != nil {
			return
		}
	}
}

// next takes the oldest, and wakes another worker if there is more.
func (h *herald) next() (tidings, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.queue = nil // a burst is not kept for ever
		return tidings{}, false
	}
	t := h.queue[0]
	h.queue[0] = tidings{}
	h.queue = h.queue[1:]
	if len(h.queue) > 0 {
		h.ring()
	}
	return t, true
}

func (h *herald) publish(ctx context.Context, t *tidings) error {
	bound, cancel := context.WithTimeout(ctx, heraldTimeout)
	defer cancel()
	var props *Properties
	if t.payload != nil {
		props = &Properties{ContentType: "application/json"}
	}
	return h.publisher.Publish(bound, h.topics.desired(t.device), 1, true, t.payload, props)
}
