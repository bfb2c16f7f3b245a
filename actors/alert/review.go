package alert

import "slices"

// Review does what rules and silences that have just come in force mean for a twin of which nothing else is
// heard: what was due is done, open alerts become theirs, and what they mind in the twin as it is begins.
func (b *Book) Review(s *Set, device string, now int64, emit *[]Alert) {
	if b.due != 0 && b.due <= now { // under the new rules nobody may remember that
		b.Tick(s, device, now, emit)
	}
	b.Reconcile(s, device, now, emit)
	b.tick(s, device, now, emit)
}

// Concerned says whether Review would change an alert, or when time is up. It changes nothing.
func (b *Book) Concerned(s *Set, device string, now int64) bool {
	if b.due != 0 && b.due <= now {
		return true
	}
	try := *b
	try.trackers = slices.Clone(b.trackers)
	for i := range try.trackers {
		try.trackers[i].fires = slices.Clone(try.trackers[i].fires)
		if e := try.trackers[i].open; e != nil {
			open := *e
			try.trackers[i].open = &open
		}
	}
	var changes []Alert
	try.Review(s, device, now, &changes)
	return len(changes) > 0 || try.due != b.due
}
