package api

import (
	"sync"
	"time"
)

// metronome wakes those who wait for the next tick all at the same time. Safe for concurrent use; its zero value is
// ready. It runs only while somebody waits: the first who does sleeps for all.
type metronome struct {
	alarm alarm // of the first

	mu   sync.Mutex
	next chan struct{} // closed at the tick; nil: nobody waits
}

// wait returns at the next multiple of every.
func (m *metronome) wait(every time.Duration) {
	m.mu.Lock()
	if next := m.next; next != nil {
		m.mu.Unlock()
		<-next
		return
	}
	next := make(chan struct{})
	m.next = next
	m.mu.Unlock()

	m.alarm.sleep(every - time.Duration(time.Now().UnixNano())%every)

	m.mu.Lock()
	m.next = nil
	m.mu.Unlock()
	close(next)
}
