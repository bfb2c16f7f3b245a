package host

import (
	"context"
	"slices"
	"time"
)

// room is how much a mailbox holds.
type room struct{ messages, bytes int }

// waiter is a batch in front of a full mailbox; its sender waits in offer. Batches enter in the order
// they came in: were room left to whoever looks first, some senders would wait for seconds.
type waiter struct {
	msgs []Message
	size int
	done chan struct{} // closed when err says what became of the batch
	err  error
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
	w := &waiter{msgs: msgs}
	for i := range msgs {
		w.size += len(msgs[i].Device) + len(msgs[i].Payload)
	}
	m.mu.Lock()
	switch {
	case m.shut:
		m.mu.Unlock()
		return ErrClosed
	case len(m.queue) == 0 && m.hasRoom():
		m.enter(w)
		n := len(m.msgs)
		m.mu.Unlock()
		m.soon(n)
		return nil
	case patience > 0 && m.stalled(patience, progress) <= 0:
		m.mu.Unlock()
		return ErrSaturated
	}
	w.done = make(chan struct{})
	m.queue = append(m.queue, w)
	m.mu.Unlock()
	return m.await(ctx, w, patience, progress)
}

// await waits until w has entered, or takes it out of the queue again.
func (m *mailbox) await(ctx context.Context, w *waiter, patience time.Duration, progress func() int64) error {
	var expired <-chan time.Time
	if patience > 0 {
		t := time.NewTicker(patience)
		defer t.Stop()
		expired = t.C
	}
	for {
		select {
		case <-w.done:
			return w.err
		case <-expired:
		case <-ctx.Done():
		}
		if out, err := m.leave(ctx, w, patience, progress); out {
			return err
		}
	}
}

// leave takes w out of the queue if its time is over.
func (m *mailbox) leave(ctx context.Context, w *waiter, patience time.Duration, progress func() int64) (out bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.Index(m.queue, w)
	switch {
	case at < 0: // it has its answer
		return true, w.err
	case ctx.Err() != nil:
		err = ctx.Err()
	case m.stalled(patience, progress) <= 0:
		err = ErrSaturated
	default:
		return false, nil
	}
	m.queue = slices.Delete(m.queue, at, at+1)
	return true, err
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

// The rest is called under mu.

func (m *mailbox) hasRoom() bool {
	return len(m.msgs) < m.limit.messages && m.size < m.limit.bytes
}

func (m *mailbox) enter(w *waiter) {
	m.msgs, m.size = append(m.msgs, w.msgs...), m.size+w.size
}

// stalled is how much of patience is left for a mailbox without room.
func (m *mailbox) stalled(patience time.Duration, progress func() int64) time.Duration {
	now := time.Now()
	left := patience - now.Sub(m.full)
	if mark := progress(); m.full.IsZero() || left <= 0 && mark != m.mark {
		m.full, m.mark, left = now, mark, patience
	}
	return left
}

// cleared lets in who waits, in order, now that msgs is empty; if the mailbox is shut it turns them away.
func (m *mailbox) cleared() {
	m.size, m.full = 0, time.Time{}
	n := 0
	for ; n < len(m.queue) && (m.shut || m.hasRoom()); n++ {
		w := m.queue[n]
		if m.shut {
			w.err = ErrClosed
		} else {
			m.enter(w)
		}
		close(w.done)
	}
	if n > 0 {
		m.queue = slices.Delete(m.queue, 0, n)
		m.signal()
	}
}
