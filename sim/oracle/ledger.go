package oracle

import (
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// ledger remembers what a run sent: when each sample was first written, and which broken messages
// must turn up in the dead letters. It is the fleet's Observer.
type ledger struct {
	start   time.Time
	index   map[string]int // device id to place
	devices []sentLog

	mu     sync.Mutex
	poison map[uint64]int // hash of a payload to how often it was found
}

// sentLog is one device's send times. 4 bytes a sample: units of 10 µs since the start, 11 hours at
// most, plus one so that 0 is "not sent".
type sentLog struct {
	mu sync.Mutex
	at []uint32
}

const timeUnit = 10 * time.Microsecond

func newLedger(start time.Time, ids []string) *ledger {
	l := &ledger{
		start:   start,
		index:   make(map[string]int, len(ids)),
		devices: make([]sentLog, len(ids)),
		poison:  make(map[uint64]int),
	}
	for i, id := range ids {
		l.index[id] = i
	}
	return l
}

// Sent implements fleet.Observer.
func (l *ledger) Sent(device int, first uint64, count int, at int64) {
	d := &l.devices[device]
	since := uint32((at-l.start.UnixNano())/int64(timeUnit)) + 1
	d.mu.Lock()
	defer d.mu.Unlock()
	last := int(first) + count - 1
	for len(d.at) < last {
		d.at = append(d.at, 0)
	}
	for i := int(first) - 1; i < last; i++ {
		d.at[i] = since
	}
}

// Poisoned implements fleet.Observer.
func (l *ledger) Poisoned(payload []byte) {
	h := xxhash.Sum64(payload)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.poison[h] = 0
}

// foundPoison notes a dead letter; others than ours are ignored.
func (l *ledger) foundPoison(payload []byte) {
	h := xxhash.Sum64(payload)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ours := l.poison[h]; ours {
		l.poison[h] = n + 1
	}
}

// poisonAccount is how many broken messages were sent and how many of them were found.
func (l *ledger) poisonAccount() (sent, found int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.poison {
		if n > 0 {
			found++
		}
	}
	return len(l.poison), found
}

// sentAt is when a sample was first written.
func (l *ledger) sentAt(id string, seq uint64) (time.Time, bool) {
	i, ok := l.index[id]
	if !ok || seq == 0 {
		return time.Time{}, false
	}
	d := &l.devices[i]
	d.mu.Lock()
	defer d.mu.Unlock()
	if seq > uint64(len(d.at)) || d.at[seq-1] == 0 {
		return time.Time{}, false
	}
	return l.start.Add(time.Duration(d.at[seq-1]-1) * timeUnit), true
}
