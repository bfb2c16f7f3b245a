package host

import "time"

const (
	wheelTick  = int64(50 * time.Millisecond)
	wheelSlots = 512
)

// wheel keeps when to look at which twin. Entries are never removed: one is void unless its cell
// still names its time, so a sample that only moves a deadline further away costs nothing.
type wheel struct {
	cur   int64 // tick up to which everything fired
	slots [wheelSlots][]wheelEntry
	count int
}

type wheelEntry struct {
	cell *cell
	at   int64 // unix nanoseconds
}

func newWheel(now int64) *wheel { return &wheel{cur: now / wheelTick} }

// schedule makes sure that c is looked at by due, unless it will be looked at earlier anyway.
func (w *wheel) schedule(c *cell, due int64) {
	if due == 0 || (c.lookAt != 0 && c.lookAt <= due) {
		return
	}
	c.lookAt = due
	w.insert(wheelEntry{c, due})
}

func (w *wheel) insert(e wheelEntry) {
	// A time behind the horizon waits in the farthest slot and is inserted again from there.
	tick := min(max(e.at/wheelTick+1, w.cur+1), w.cur+wheelSlots-1)
	slot := &w.slots[tick%wheelSlots]
	*slot = append(*slot, e)
	w.count++
}

// advance calls fire for every cell whose time has come.
func (w *wheel) advance(now int64, fire func(*cell)) {
	for to := now / wheelTick; w.cur < to; {
		if w.count == 0 {
			w.cur = to
			return
		}
		w.cur++
		slot := &w.slots[w.cur%wheelSlots]
		entries := *slot
		*slot = nil
		w.count -= len(entries)
		for _, e := range entries {
			switch {
			case e.cell.lookAt != e.at: // overtaken by an earlier look, or the twin is gone
			case e.at > now:
				w.insert(e)
			default:
				e.cell.lookAt = 0
				fire(e.cell)
			}
		}
		if *slot == nil {
			clear(entries)
			*slot = entries[:0]
		}
	}
}
