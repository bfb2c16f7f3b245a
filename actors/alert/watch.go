package alert

import (
	"math"
	"time"
)

// learnedAfter is how many distinct receive times it takes to know a device's interval.
const learnedAfter = 8

const never = math.MaxInt64

// Seen notes an accepted message that carries samples, received at now.
func (b *Book) Seen(s *Set, device string, now int64, emit *[]Alert) {
	if now > b.lastSeen {
		b.learn(now)
	}
	if b.timed > 0 {
		in := turn{s, device, now, emit}
		for _, r := range s.stale {
			if t := b.find(r.ID, ""); t != nil && t.open != nil {
				b.advance(&in, r, "", &evidence{at: now})
			}
		}
		b.judgeNumbering(&in)
	}
	b.schedule(s, device, now)
}

// learn takes in the distance to the message before: the mean of the first ones, then an average
// that forgets. In whole nanoseconds, and an outage counts no more than what is taken for one.
func (b *Book) learn(now int64) {
	distance := now - b.lastSeen
	switch {
	case b.lastSeen == 0:
	case b.seen < learnedAfter:
		b.interval += (distance - b.interval) / int64(b.seen)
	default:
		distance = min(distance, max(staleIntervals*b.interval, int64(staleFloor)))
		b.interval += (distance - b.interval) / learnedAfter
	}
	b.lastSeen = now
	b.seen = min(b.seen+1, learnedAfter)
}

// Presence notes what the device or its last will says: online or not, at a receive time. Silence is
// no such statement; that is what stale rules are for.
func (b *Book) Presence(s *Set, device string, online bool, at int64, emit *[]Alert) {
	if online && b.offline {
		b.since = at
	}
	b.offline = !online
	in := turn{s, device, at, emit}
	b.judgeOffline(&in)
	b.schedule(s, device, at)
}

// Gap notes that missing numbers were given up on.
func (b *Book) Gap(s *Set, device string, at int64, missing uint64, emit *[]Alert) {
	in := turn{s, device, at, emit}
	for _, r := range s.gap {
		size := float64(missing)
		if !r.matches(device, b.tags) || r.begins(size) < 0 {
			continue // smaller than the rule minds: it prolongs nothing either
		}
		e := evidence{begin: size, now: size, at: at, value: size}
		if t := b.find(r.ID, ""); t != nil && t.open != nil {
			e.now = max(size, r.enter(t.open.base)) // does not make the one before it milder
		}
		b.advance(&in, r, "", &e)
		b.find(r.ID, "").open.breach = at
	}
	b.schedule(s, device, at)
}

// enter is where the level of severity s, or the next milder one there is, begins.
func (r *compiled) enter(s Severity) float64 {
	for i := len(r.Levels) - 1; i > 0; i-- {
		if r.Levels[i].Severity <= s {
			return r.Levels[i].Enter
		}
	}
	return r.Levels[0].Enter
}

// Tick does what is due: call it at the time that Due gave, or later. What it does bears the times at
// which it was due, so an owner that was late, or dead, changes no alert. Due may still be in the past
// afterwards: then there is more to do.
func (b *Book) Tick(s *Set, device string, now int64, emit *[]Alert) {
	for range ticksAtOnce {
		at := b.due
		if at == 0 || now < at {
			return
		}
		if b.tick(s, device, at, emit); b.due == at { // only due behind that moment
			b.tick(s, device, now, emit)
		}
	}
}

// ticksAtOnce bounds what one Tick catches up with.
const ticksAtOnce = 16

func (b *Book) tick(s *Set, device string, now int64, emit *[]Alert) {
	in := turn{s, device, now, emit}
	b.judgeOffline(&in)
	if b.diverged != 0 || b.timed > 0 {
		b.judgeDiverged(&in)
	}
	if !b.suppressed(s) {
		for _, r := range s.stale {
			b.judgeSilence(&in, r)
		}
	}
	b.judgeQuiet(&in, s.gap)
	b.judgeQuiet(&in, s.letters)
	if s.timers {
		b.runTimers(&in)
	}
	b.schedule(s, device, now)
}

// judgeOffline also silences stale: that an absent device sends nothing is no news.
func (b *Book) judgeOffline(in *turn) {
	gone := 0.0
	if b.offline {
		gone = 1
	}
	for _, r := range in.set.offline {
		if r.matches(in.device, b.tags) {
			b.advance(in, r, "", &evidence{begin: gone, now: gone, at: in.now, value: gone})
		}
	}
	if !b.suppressed(in.set) {
		return
	}
	for _, r := range in.set.stale {
		if t := b.find(r.ID, ""); t != nil && t.open != nil {
			e := evidence{at: in.now, value: t.open.alert.Value, why: "the device is offline, which is an alert of its own"}
			b.resolve(in, r, t, &e)
		}
	}
}

// suppressed says that an offline alert fires which people see.
func (b *Book) suppressed(s *Set) bool {
	for _, r := range s.offline {
		if r.shadow() {
			continue
		}
		if t := b.find(r.ID, ""); t != nil && t.open != nil && t.open.alert.State == Firing {
			return true
		}
	}
	return false
}

func (b *Book) judgeSilence(in *turn, r *compiled) {
	end, ok := b.silence(r)
	if !ok || !r.matches(in.device, b.tags) {
		return
	}
	e := evidence{at: in.now}
	if t := b.find(r.ID, ""); t != nil && t.open != nil && b.since > b.lastSeen {
		end -= b.since - b.lastSeen // that it is back begins no silence anew that is an alert already: only data ends it
	}
	if in.now >= end {
		silent := time.Duration(in.now - b.lastSeen)
		e.begin, e.now, e.value = 1, 1, silent.Seconds()
		e.why = "no data for " + duration(silent)
		if b.seen >= learnedAfter {
			e.why += ", usually every " + duration(time.Duration(b.interval))
		}
	}
	b.advance(in, r, "", &e)
}

// silence is when it has lasted too long for a rule.
func (b *Book) silence(r *compiled) (end int64, ok bool) {
	patience, ok := r.patience(b.interval, b.seen >= learnedAfter)
	if !ok || b.lastSeen == 0 {
		return 0, false
	}
	return max(b.lastSeen, b.since) + int64(patience), true
}

// quiet is when the alert of a gap, or of dead letters, may resolve.
func (e *episode) quiet(r *compiled) int64 {
	return max(e.breach+int64(r.Window), e.entered+int64(r.MinDwell))
}

// Due is when Tick has something to do, 0: nothing.
func (b *Book) Due() int64 { return b.due }

// schedule works out Due after an input at now.
func (b *Book) schedule(s *Set, device string, now int64) {
	due := int64(never)
	if b.timed == 0 || !b.suppressed(s) {
		for _, r := range s.stale {
			due = min(due, b.dueSilence(r, device, now))
		}
	}
	if b.timed > 0 {
		due = min(due, b.dueOpen(s))
	}
	if s.timers && b.timed+b.readings > 0 {
		due = min(due, b.dueTimers(s))
	}
	if due == never {
		due = 0
	}
	b.due = due
}

// dueOpen is when time next changes an open offline, diverged, gap or dead letters alert.
func (b *Book) dueOpen(s *Set) int64 {
	due := min(b.dueState(s.offline, b.offline), b.dueState(s.diverged, b.diverged != 0))
	return min(due, b.dueQuiet(s.gap), b.dueQuiet(s.letters))
}

// dueState is when time next changes an alert of rules that go by a state of the device, which now holds or not.
func (b *Book) dueState(rules []*compiled, holds bool) int64 {
	due := int64(never)
	for _, r := range rules {
		t := b.find(r.ID, "")
		switch {
		case t == nil || t.open == nil || t.open.calmed != 0:
		case t.open.alert.State == Pending:
			due = min(due, t.open.entered+int64(r.ForDuration))
		case !holds:
			due = min(due, t.open.entered+int64(r.MinDwell))
		}
	}
	return due
}

func (b *Book) dueSilence(r *compiled, device string, now int64) int64 {
	if t := b.find(r.ID, ""); b.timed > 0 && t != nil && t.open != nil {
		// Data came back too early for the dwell: look again when it is over.
		if end := t.open.entered + int64(r.MinDwell); end > now {
			return end
		}
		return never
	}
	if end, ok := b.silence(r); ok && r.matches(device, b.tags) {
		return end
	}
	return never
}
