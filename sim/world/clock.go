package world

import (
	"container/heap"
	"time"
)

// clock is virtual time and what is due at it.
type clock struct {
	now    int64 // unix nanoseconds
	timers timers
	serial uint64
}

// timer is something due; of two at the same time the older one comes first.
type timer struct {
	at     int64
	serial uint64
	fn     func()
}

type timers []timer

// Len implements heap.Interface.
func (t timers) Len() int { return len(t) }

// Less implements heap.Interface.
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].serial < t[j].serial
}

// Swap implements heap.Interface.
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) } //nolint:errcheck,forcetypeassert // heap gives back what after gave it

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	(*t)[last] = timer{}
	*t = (*t)[:last]
	return x
}

// after has fn called when d has passed.
func (c *clock) after(d time.Duration, fn func()) {
	c.serial++
	heap.Push(&c.timers, timer{c.now + int64(d), c.serial, fn})
}

// advance lets d pass.
func (c *clock) advance(d time.Duration) {
	to := c.now + int64(d)
	for len(c.timers) > 0 && c.timers[0].at <= to {
		t := heap.Pop(&c.timers).(timer) //nolint:errcheck,forcetypeassert // heap gives back what after gave it
		c.now = max(c.now, t.at)
		t.fn()
	}
	c.now = to
}

// time is now as others like it.
func (c *clock) time() time.Time { return time.Unix(0, c.now) }
