package host

import (
	"sync"
	"sync/atomic"
	"time"
)

// mailbox is the bounded way into a partition: messages of devices, calls of queries and timers, and
// acknowledgements of the log. Only messages are bounded; calls are bounded by their callers, who
// wait for the answer, and acknowledgements by the records in flight.
type mailbox struct {
	wake chan struct{} // capacity 1: something is there
	beat *beat         // nil: nothing waits for a beat
	due  atomic.Bool   // at the next one wake is signalled

	nobody sync.Mutex // held while calls run that find nobody

	mu    sync.Mutex
	msgs  []Message
	size  int  // bytes of msgs
	shut  bool // nobody will look into it: no message enters
	ended bool // nobody will take calls and acknowledgements either
	calls []func(*owner)
	acks  []ack
	limit room
	queue []*waiter // batches that found no room, first come, first served
	full  time.Time // when somebody found no room and no progress since; zero: there is room
	mark  int64     // progress at that time
}

// ack is one answer of the log. owner tells acknowledgements of a stopped owner from those of the
// owner that serves now (O2).
type ack struct {
	owner  *owner
	state  bool // of doppel.state
	n      uint64
	offset int64
	err    error
}

func newMailbox(limit room, beat *beat) *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), limit: limit, beat: beat}
}

// shutOut lets no message in any more, and returns what is inside.
func (m *mailbox) shutOut() (left []Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shut = true
	left, m.msgs = m.msgs, nil
	m.cleared()
	return left
}

// open begins a time in which somebody looks into the mailbox.
func (m *mailbox) open() {
	m.nobody.Lock() // a call that runs still comes to its end first
	defer m.nobody.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shut, m.ended = false, false
}

// end ends it. Calls that wait, and those to come, find nobody; acknowledgements are for nobody.
func (m *mailbox) end() {
	m.nobody.Lock()
	defer m.nobody.Unlock()
	m.mu.Lock()
	calls := m.calls
	m.calls, m.acks, m.ended = nil, nil, true
	m.mu.Unlock()
	for _, call := range calls {
		call(nil)
	}
}

// call runs fn on the partition's goroutine. fn gets nil when nobody serves the partition.
func (m *mailbox) call(fn func(*owner)) {
	if m.enqueue(fn) {
		m.signal()
		return
	}
	m.nobody.Lock()
	if m.enqueue(fn) { // opened meanwhile
		m.nobody.Unlock()
		m.signal()
		return
	}
	defer m.nobody.Unlock()
	fn(nil)
}

func (m *mailbox) enqueue(fn func(*owner)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	m.calls = append(m.calls, fn)
	return true
}

func (m *mailbox) ack(a ack) {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	m.acks = append(m.acks, a)
	n := len(m.acks)
	m.mu.Unlock()
	if n == 1 || n == many {
		m.soon(n)
	}
}

// many messages or acknowledgements do not wait for a beat.
const many = 256

// soon signals where n of a kind wait.
func (m *mailbox) soon(n int) {
	if m.beat == nil || n >= many {
		m.signal()
		return
	}
	m.beat.wake(m)
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
