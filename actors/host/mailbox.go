package host

import (
	"context"
	"sync"
)

// mailbox is the bounded way into a partition: messages of devices, calls of queries and timers, and
// acknowledgements of the log. Only messages are bounded; calls are bounded by their callers, who
// wait for the answer, and acknowledgements by the records in flight.
type mailbox struct {
	wake chan struct{} // capacity 1: something is there

	mu    sync.Mutex
	msgs  []Message
	shut  bool // nobody will look into it: no message enters
	calls []func(*owner)
	acks  []ack
	limit int
	space chan struct{} // closed when room appears; nil while nobody waits
}

// ack is one answer of the log. owner tells acknowledgements of a stopped owner from those of the
// owner that serves now (O2).
type ack struct {
	owner  *owner
	n      uint64
	offset int64
	err    error
}

func newMailbox(limit int) *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), limit: limit}
}

// push adds msgs, waiting while the mailbox is full. A batch that finds room enters whole, so the
// bound may be passed by one batch.
func (m *mailbox) push(ctx context.Context, msgs []Message) error {
	for {
		m.mu.Lock()
		if m.shut {
			m.mu.Unlock()
			return ErrClosed
		}
		if len(m.msgs) < m.limit {
			m.msgs = append(m.msgs, msgs...)
			m.mu.Unlock()
			m.signal()
			return nil
		}
		if m.space == nil {
			m.space = make(chan struct{})
		}
		space := m.space
		m.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setShut says whether messages enter, and returns what is left inside if not.
func (m *mailbox) setShut(shut bool) (left []Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shut = shut; !shut {
		return nil
	}
	left, m.msgs = m.msgs, nil
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
	return left
}

// call runs fn on the partition's goroutine. fn gets nil when nobody serves the partition.
func (m *mailbox) call(fn func(*owner)) {
	m.mu.Lock()
	m.calls = append(m.calls, fn)
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) ack(a ack) {
	m.mu.Lock()
	m.acks = append(m.acks, a)
	first := len(m.acks) == 1
	m.mu.Unlock()
	if first {
		m.signal()
	}
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// takeMessages swaps the waiting messages for the emptied buffer of the last turn.
func (m *mailbox) takeMessages(spare []Message) []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.msgs) == 0 {
		return spare[:0]
	}
	msgs := m.msgs
	m.msgs = spare[:0]
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
	return msgs
}

func (m *mailbox) takeCalls() []func(*owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}

func (m *mailbox) takeAcks(spare []ack) []ack {
	m.mu.Lock()
	defer m.mu.Unlock()
	acks := m.acks
	clear(spare) // or a stopped owner, with all its twins, would live on in them
	m.acks = spare[:0]
	return acks
}
