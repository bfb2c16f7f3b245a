package sequence

import "sort"

// num is a number as the tests write it.
type num struct{ boot, seq uint64 }

func (a num) less(b num) bool { return a.boot < b.boot || a.boot == b.boot && a.seq < b.seq }

// model is the dumb reference: it writes down what became of every single number and searches
// through all of it. It never forgets.
type model struct {
	begun      bool
	boot, next uint64
	hasPrev    bool
	prev       uint64
	fate       map[num]fate // of numbers that are not simply unheard of
	held       map[num]bool // value: it is only the place of a refused one
	at         map[num]int64
}

type fate int

const (
	neverCame fate = iota
	wasTaken
	wasGiven
	wasRefused
)

func newModel() *model {
	return &model{fate: map[num]fate{}, held: map[num]bool{}, at: map[num]int64{}}
}

func (m *model) place(n num) Place {
	if m.begun && n.boot < m.boot {
		switch {
		case !m.hasPrev || n.boot != m.prev:
			return Stale
		case m.fate[n] == wasTaken:
			return Taken
		default:
			return Behind
		}
	}
	if m.begun && n.boot == m.boot && n.seq < m.next {
		if m.fate[n] == wasTaken {
			return Taken
		}
		return Behind
	}
	if m.isNext(n) {
		return InOrder
	}
	if refused, ok := m.held[n]; ok && !refused {
		return Taken
	}
	return Ahead
}

// isNext: the next number of this boot, or the first of a newer one with nothing older waiting.
func (m *model) isNext(n num) bool {
	if m.begun && n.boot == m.boot {
		return n.seq == m.next
	}
	for h := range m.held {
		if h.boot < n.boot {
			return false
		}
	}
	return n.seq == 1
}

func (m *model) moveTo(n num) {
	if m.begun && n.boot != m.boot {
		m.prev, m.hasPrev = m.boot, true
	}
	m.begun, m.boot, m.next = true, n.boot, n.seq+1
}

func (m *model) offer(n num, now int64) (p Place, wasMissing bool, out []num) {
	p = m.place(n)
	switch p {
	case InOrder:
		m.moveTo(n)
		m.fate[n] = wasTaken
	case Behind:
		wasMissing = m.fate[n] == wasGiven
		m.fate[n] = wasTaken
	case Ahead:
		if _, ok := m.held[n]; !ok {
			m.at[n] = now
		}
		m.held[n] = false
	case Taken, Stale:
	}
	return p, wasMissing, m.drain()
}

func (m *model) refuse(n num, now int64) (wasMissing bool, out []num) {
	switch m.place(n) {
	case InOrder:
		m.moveTo(n)
		m.fate[n] = wasRefused
	case Behind:
		wasMissing = m.fate[n] == wasGiven
		m.fate[n] = wasRefused
	case Ahead:
		if _, ok := m.held[n]; !ok {
			m.held[n], m.at[n] = true, now
		}
	case Taken, Stale:
	}
	return wasMissing, m.drain()
}

func (m *model) gap(boot, upTo uint64) (missing uint64, out []num) {
	for {
		n, ok := m.gapOnce(boot, upTo)
		if !ok {
			return missing, out
		}
		missing += n
		out = append(out, m.drain()...)
	}
}

func (m *model) gapOnce(boot, upTo uint64) (missing uint64, ok bool) {
	for _, h := range m.waiting() {
		if h.boot < boot {
			return 0, false
		}
		if h.boot == boot {
			upTo = min(upTo, h.seq)
		}
	}
	if m.begun && boot < m.boot {
		return 0, false
	}
	from := uint64(1)
	if m.begun && boot == m.boot {
		from = m.next
	}
	if upTo <= from {
		return 0, false
	}
	start := !m.begun
	m.moveTo(num{boot, upTo - 1})
	if start {
		return 0, true
	}
	for seq := from; seq < upTo; seq++ {
		m.fate[num{boot, seq}] = wasGiven
	}
	return upTo - from, true
}

func (m *model) drain() (out []num) {
	for again := true; again; {
		again = false
		for _, h := range m.waiting() {
			if !m.isNext(h) {
				continue
			}
			m.moveTo(h)
			m.fate[h] = wasTaken
			if m.held[h] {
				m.fate[h] = wasRefused
			} else {
				out = append(out, h)
			}
			delete(m.held, h)
			delete(m.at, h)
			again = true
			break
		}
	}
	return out
}

func (m *model) waiting() []num {
	all := make([]num, 0, len(m.held))
	for h := range m.held {
		all = append(all, h)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].less(all[j]) })
	return all
}
