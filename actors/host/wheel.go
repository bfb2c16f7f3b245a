package host

import "time"

const (
	wheelTick  = int64(50 * time.Millisecond)
	wheelSlots = 512
)

// scheduled is what a wheel looks at. lookTime is where its time stands; 0: not scheduled.
type scheduled interface{ lookTime() *int64 }

// wheel keeps when to look at which twin. Entries are never removed: one is void unless its twin
// still names its time, so a sample that only moves a deadline further away costs nothing.
type wheel[T scheduled] struct {
	tick  int64 // nanoseconds
	cur   int64 // tick up to which everything fired
	slots [wheelSlots][]wheelEntry[T]
	count int
}

type wheelEntry[T scheduled] struct {
	twin T
	at   int64 // unix nanoseconds
}

func newWheel[T scheduled](now, tick int64) *wheel[T] { return &wheel[T]{tick: tick, cur: now / tick} }

// schedule makes sure that t is looked at by due, unless it will be looked at earlier anyway.
func (w *wheel[T]) schedule(t T, due int64) {
	lookAt := t.lookTime()
	if due == 0 || (*lookAt != 0 && *lookAt <= due) {
		return
	}
	*lookAt = due
	w.insert(wheelEntry[T]{t, due})
}

func (w *wheel[T]) insert(e wheelEntry[T]) {
	// A time behind the horizon waits in the farthest slot and is inserted again from there.
	tick := min(max(e.at/w.tick+1, w.cur+1), w.cur+wheelSlots-1)
	slot := &w.slots[tick%wheelSlots]
	*slot = append(*slot, e)
	w.count++
}

// advance calls fire for every twin whose time has come.
func (w *wheel[T]) advance(now int64, fire func(T)) {
	for to := now / w.tick; w.cur < to; {
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
			lookAt := e.twin.lookTime()
			switch {
			case *lookAt != e.at: // overtaken by an earlier look, or the twin is gone
			case e.at > now:
				w.insert(e)
			default:
				*lookAt = 0
				fire(e.twin)
			}
		}
		if *slot == nil {
			clear(entries)
			*slot = entries[:0]
		}
	}
}
