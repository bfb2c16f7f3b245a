package command

import (
	"slices"
	"time"
)

// entry is a command and what became of it. Its fields are under the Book's lock; done is closed once
// answer and err are final.
type entry struct {
	Command
	correlation []byte
	hash        uint64
	deadline    time.Time
	timer       *time.Timer // at deadline
	callers     int         // that wait for the answer
	sent        bool        // it is with its device, or on the way

	done   chan struct{}
	over   bool
	answer Answer
	err    error
}

// line is the commands of one device, in order. Under the Book's lock.
type line struct {
	device    string
	partition int32
	current   *entry // with the device, or on its way there
	waiting   []*entry
	// absent: the device is offline, and a change of its twin is waited for.
	absent bool
	// busy: a worker has the line, and looks at it again when told meanwhile.
	busy, again bool
}

func (l *line) idle() bool { return l.current == nil && len(l.waiting) == 0 && !l.busy }

// remove takes e out of the line; false if it is not there any more.
func (l *line) remove(e *entry) bool {
	if l.current == e {
		l.current = nil
		return true
	}
	i := slices.Index(l.waiting, e)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// memory is the answers given to commands with keys, oldest first. Under the Book's lock.
type memory struct {
	keys  map[keyOf]*entry // under way or answered
	order []remembered     // answered
	bytes int
}

type keyOf struct{ device, key string }

type remembered struct {
	key   keyOf
	entry *entry
	until time.Time
}

// keep remembers an answered entry.
func (m *memory) keep(e *entry, now time.Time) {
	m.order = append(m.order, remembered{keyOf{e.Device, e.Key}, e, now.Add(remember)})
	m.bytes += len(e.answer.Body)
	m.forget(now)
}

// forget drops what is too old or too much.
func (m *memory) forget(now time.Time) {
	n := 0
	for ; n < len(m.order); n++ {
		r := &m.order[n]
		if r.until.After(now) && len(m.order)-n <= maxRemembered && m.bytes <= maxRememberBytes {
			break
		}
		m.bytes -= len(r.entry.answer.Body)
		if m.keys[r.key] == r.entry {
			delete(m.keys, r.key)
		}
	}
	clear(m.order[:n])
	m.order = m.order[n:]
}
