package host

import (
	"sync"
	"time"
)

// gather is how long what comes at once, one partition after the other, is waited for at least.
const gather = 100 * time.Microsecond

// beat wakes partitions for messages and acknowledgements: all that have some together, and not twice
// within every. To wake a goroutine, or a core that has gone to sleep, costs more than to apply a message,
// and what comes within a beat shares a turn, a batch of the log and an answer. What follows a pause does not
// wait. Calls wake a partition at once. Safe for concurrent use.
type beat struct {
	every time.Duration

	mu    sync.Mutex
	timer *time.Timer
	armed bool
	last  time.Time  // it fired
	due   []*mailbox // with something for their partitions
	spare []*mailbox
}

func newBeat(every time.Duration) *beat { return &beat{every: every} }

// wake sees to it that m is signalled soon. It takes what was put into m before.
func (b *beat) wake(m *mailbox) {
	if m.due.Swap(true) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = append(b.due, m)
	if b.armed {
		return
	}
	b.armed = true
	wait := max(b.every-time.Since(b.last), gather)
	if b.timer == nil {
		b.timer = time.AfterFunc(wait, b.fire)
		return
	}
	b.timer.Reset(wait)
}

func (b *beat) fire() {
	b.mu.Lock()
	due := b.due
	b.due, b.spare, b.armed, b.last = b.spare[:0], nil, false, time.Now()
	b.mu.Unlock()
	for _, m := range due {
		m.due.Store(false) // first: what comes from now on is worth another signal
		m.signal()
	}
	clear(due)
	b.mu.Lock()
	b.spare = due[:0]
	b.mu.Unlock()
}
