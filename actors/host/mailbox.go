package host

import (
	"context"
	"sync"
	"time"
)

// mailbox is the bounded way into a partition: messages of devices, calls of queries and timers, and
// acknowledgements of the log. Only messages are bounded; calls are bounded by their callers, who
// wait for the answer, and acknowledgements by the records in flight.
type mailbox struct {
	wake chan struct{} // capacity 1: something is there

	mu    sync.Mutex
	msgs  []Message
	size  int  // bytes of msgs
	shut  bool // nobody will look into it: no message enters
	calls []func(*owner)
	acks  []ack
	limit room
	space chan struct{} // closed when room appears; nil while nobody waits
	full  time.Time     // when somebody found no room and no progress since; zero: there is room
	mark  int64         // progress at that time
}

// room is how much a mailbox holds.
type room struct{ messages, bytes int }

// ack is one answer of the log. owner tells acknowledgements of a stopped owner from those of the
// owner that serves now (O2).
type ack struct {
	owner  *owner
	state  bool // of doppel.state
	n      uint64
	offset int64
	err    error
}

func newMailbox(limit room) *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), limit: limit}
}

// push adds msgs, waiting while the mailbox is full. A batch that finds room enters whole, so the
// bounds may be passed by one batch.
func (m *mailbox) push(ctx context.Context, msgs []Message) error {
	return m.offer(ctx, msgs, 0, nil)
}

// offer is push that returns ErrSaturated once the mailbox was full for patience without progress: a
// number that changes as long as the owner gets on. Where room appears again and again, or may soon,
// it waits, which slows the source down. Patience 0: it always does.
func (m *mailbox) offer(ctx context.Context, msgs []Message, patience time.Duration, progress func() int64) error {
	size := 0
	for i := range msgs {
		size += len(msgs[i].Device) + len(msgs[i].Payload)
	}
	for {
		m.mu.Lock()
		if m.shut {
			m.mu.Unlock()
			return ErrClosed
		}
		if m.hasRoom() {
			m.msgs, m.size = append(m.msgs, msgs...), m.size+size
			m.mu.Unlock()
			m.signal()
			return nil
		}
		var expired <-chan time.Time
		if patience > 0 {
			left := m.stalled(patience, progress)
			if left <= 0 {
				m.mu.Unlock()
				return ErrSaturated
			}
			expired = time.After(left)
		}
		if m.space == nil {
			m.space = make(chan struct{})
		}
		space := m.space
		m.mu.Unlock()
		select {
		case <-space:
		case <-expired:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takes says what offer would find: nil, ErrSaturated or ErrClosed.
func (m *mailbox) takes(patience time.Duration, progress func() int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.shut:
		return ErrClosed
	case !m.hasRoom() && m.stalled(patience, progress) <= 0:
		return ErrSaturated
	}
	return nil
}

func (m *mailbox) hasRoom() bool {
	return len(m.msgs) < m.limit.messages && m.size < m.limit.bytes
}

// stalled is how much of patience is left for a mailbox without room. Under mu.
func (m *mailbox) stalled(patience time.Duration, progress func() int64) time.Duration {
	now := time.Now()
	left := patience - now.Sub(m.full)
	if mark := progress(); m.full.IsZero() || left <= 0 && mark != m.mark {
		m.full, m.mark, left = now, mark, patience
	}
	return left
}

// setShut says whether messages enter, and returns what is left inside if not.
func (m *mailbox) setShut(shut bool) (left []Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shut = shut; !shut {
		return nil
	}
	left, m.msgs = m.msgs, nil
	m.cleared()
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
	m.cleared()
	return msgs
}

// cleared lets everybody in who waits. Under mu.
func (m *mailbox) cleared() {
	m.size, m.full = 0, time.Time{}
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
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
