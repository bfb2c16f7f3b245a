package alert

import "fmt"

// Refused notes that a message of the device went to the dead letters. Letters are counted in windows
// that each begin with one: of letters that come evenly a rule sees the rate it names, of a burst
// across two windows the larger part. The alert stands until no letter came for a window.
func (b *Book) Refused(s *Set, device string, at int64, emit *[]Alert) {
	if len(s.letters) == 0 {
		return
	}
	in := turn{s, device, at, emit}
	for _, r := range s.letters {
		if !r.matches(device, b.tags) {
			continue
		}
		t := b.track(r.ID, "")
		if t.previous == nil || at-t.previous.time >= int64(r.Window) || at < t.previous.time {
			t.previous = &point{time: at}
		}
		t.previous.value++
		n := t.previous.value
		e := evidence{begin: n, now: n, at: at, value: n, why: fmt.Sprintf("%s messages were refused within %s", number(n), duration(r.Window))}
		if t.open != nil {
			e.now = max(n, r.enter(t.open.base)) // a window just begun does not make it milder
		}
		b.advance(&in, r, "", &e)
		if t.open != nil {
			t.open.breach = at
		}
	}
	b.schedule(s, device, at)
}

// judgeQuiet ends alerts of rules that time alone makes good.
func (b *Book) judgeQuiet(in *turn, rules []*compiled) {
	for _, r := range rules {
		if t := b.find(r.ID, ""); t != nil && t.open != nil && in.now >= t.open.quiet(r) {
			b.advance(in, r, "", &evidence{at: in.now, value: t.open.alert.Value})
		}
	}
}

// dueQuiet is when judgeQuiet has something to do.
func (b *Book) dueQuiet(rules []*compiled) int64 {
	due := int64(never)
	for _, r := range rules {
		if t := b.find(r.ID, ""); t != nil && t.open != nil && t.open.calmed == 0 {
			due = min(due, t.open.quiet(r))
		}
	}
	return due
}
