package alert

import "slices"

// Memory is a Book as plain data, to be written to a checkpoint and read back. Rules and tags are not
// part of it.
type Memory struct {
	LastSeen, Since, Interval, Due, Diverged int64
	Seen                                     uint32
	Offline                                  bool
	Tracks                                   []Track
}

// Track is what a Book remembers of one rule and metric.
type Track struct {
	Rule, Metric string
	Count        uint64 // alerts so far

	Open   *Alert // nil: none
	Streak uint32
	Breach int64
	Reads  bool

	Base                         Severity
	Entered, Below, Calm, Calmed int64

	Fires []int64

	Rated         bool // PreviousTime and PreviousValue are set
	PreviousTime  int64
	PreviousValue float64
}

// Memory returns a copy of all that the Book remembers.
func (b *Book) Memory() Memory {
	m := Memory{
		LastSeen: b.lastSeen, Since: b.since, Interval: b.interval, Due: b.due,
		Seen: b.seen, Offline: b.offline, Diverged: b.diverged,
	}
	for i := range b.trackers {
		t := &b.trackers[i]
		k := Track{Rule: t.rule, Metric: t.metric, Count: t.count, Fires: slices.Clone(t.fires)}
		if e := t.open; e != nil {
			a := e.alert
			k.Open, k.Streak, k.Breach, k.Reads = &a, e.streak, e.breach, e.reads
			k.Base, k.Entered, k.Below, k.Calm, k.Calmed = e.base, e.entered, e.below, e.calm, e.calmed
		}
		if t.previous != nil {
			k.Rated, k.PreviousTime, k.PreviousValue = true, t.previous.time, t.previous.value
		}
		m.Tracks = append(m.Tracks, k)
	}
	return m
}

// Restore makes the Book what it was when m was taken. The tags stay.
func (b *Book) Restore(m Memory) {
	*b = Book{
		tags: b.tags, lastSeen: m.LastSeen, since: m.Since, interval: m.Interval, due: m.Due,
		seen: m.Seen, offline: m.Offline, diverged: m.Diverged,
	}
	for i := range m.Tracks {
		k := &m.Tracks[i]
		t := tracker{rule: k.Rule, metric: k.Metric, count: k.Count, fires: slices.Clone(k.Fires)}
		if k.Open != nil {
			t.open = &episode{
				alert: *k.Open, streak: k.Streak, breach: k.Breach, reads: k.Reads,
				base: k.Base, entered: k.Entered, below: k.Below, calm: k.Calm, calmed: k.Calmed,
			}
			b.count(t.open, +1)
		}
		if k.Rated {
			t.previous = &point{time: k.PreviousTime, value: k.PreviousValue}
		}
		b.trackers = append(b.trackers, t)
	}
}
