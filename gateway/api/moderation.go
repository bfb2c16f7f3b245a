package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// Where calls come by the thousand, each on its own, most of what one costs is waking up for it: the reader of its
// connection, its handler, the writer. So connections are read together then, once a tick, as network cards gather
// interrupts. That more than halves the CPU of a short call, and makes it a millisecond later.
const (
	readTick = time.Millisecond
	// moderationWindow is how long calls are counted for before anything changes.
	moderationWindow = 64 * time.Millisecond
	// moderateFrom is how many calls a second make it worth while.
	moderateFrom = 3000
	// moderatedWindows pass before the calls are counted without moderation again.
	moderatedWindows = 64
	// firstRespite and longestRespite bound, in windows, how long it is left alone where it did harm; doubled each time.
	firstRespite, longestRespite = 16, 256
)

// moderation decides whether connections are read by the tick. Callers who wait for one answer before they call again
// make fewer calls for it: such it leaves alone. So calls are counted without it, now and then, and with it they must
// not be much fewer. Safe for concurrent use.
type moderation struct {
	calls atomic.Uint64 // begun
	on    atomic.Bool
	until atomic.Int64 // end of the window

	mu      sync.Mutex
	since   int64   // the window began
	counted uint64  // calls by then
	free    float64 // calls a second when it was last off
	left    int     // windows until it is switched off to count, or may be switched on
	respite int     // of the last time; 0: it did no harm
}

// look says whether it is on at a time in ns, which may run backwards a little.
func (m *moderation) look(now int64) bool {
	if now < m.until.Load() {
		return m.on.Load()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now < m.until.Load() {
		return m.on.Load()
	}
	calls, length := m.calls.Load(), time.Duration(now-m.since)
	rate := float64(calls-m.counted) / length.Seconds()
	m.since, m.counted = now, calls
	m.until.Store(now + int64(moderationWindow))
	if length > 2*moderationWindow { // nobody called for a while, which says nothing
		m.on.Store(false)
		m.left = 0
		return false
	}
	m.on.Store(m.decide(m.on.Load(), rate))
	return m.on.Load()
}

// decide is what follows a window with that many calls a second; mu is held.
func (m *moderation) decide(on bool, rate float64) bool {
	m.left = max(m.left-1, 0)
	switch {
	case !on && m.left == 0 && rate >= moderateFrom:
		m.free, m.left = rate, moderatedWindows
		return true
	case on && rate < m.free*3/4:
		m.respite = min(max(2*m.respite, firstRespite), longestRespite)
		m.left = m.respite
		return false
	case on && m.left == 0:
		m.respite = 0
		return false
	}
	return on
}
