package twin

import "github.com/doppel-iot/doppel/actors/alert"

// Concerned says whether rules that have just come in force mean anything for the twin as it is, so that
// its owner should log a review of it. It changes nothing.
func (t *Twin) Concerned(rules *alert.Set, now int64) bool {
	return !t.quarantined && !t.Deleted() && t.book.Concerned(rules, t.id, now)
}

// stepReviewed holds the twin's alerts against the rules in force.
func (t *Twin) stepReviewed(s *step) Outcome {
	if !t.book.Concerned(s.rules, t.id, s.now) {
		return Unchanged
	}
	t.release(s)
	t.book.Review(s.rules, t.id, s.now, &s.out.Transitions)
	t.noteStale(s)
	return Applied
}

// Elapse does to the alerts what time alone does up to now. It is for those who try out rules that were not in
// force: what is logged of a twin has a tick for everything that is due.
func (t *Twin) Elapse(now int64, rules *alert.Set, out *Effects) {
	out.reset()
	for before := int64(0); !t.quarantined; {
		due := t.book.Due()
		if due == 0 || due > now || due == before {
			return
		}
		before = due
		t.book.Tick(rules, t.id, now, &out.Transitions)
	}
}
