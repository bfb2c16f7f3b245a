package twin

import "github.com/doppel-iot/doppel/actors/alert"

// stepAcknowledged notes that somebody looks after an alert, which may be over by now.
func (t *Twin) stepAcknowledged(s *step, in *Input) Outcome {
	if !t.book.Acknowledge(s.rules, t.id, &in.Acknowledgement, s.now, &s.out.Transitions) {
		return Unchanged
	}
	if !t.quarantined {
		t.release(s)
	}
	return Applied
}

// evaluate judges the rules that look at the whole twin, behind an input that changed it.
func (t *Twin) evaluate(s *step) {
	if t.quarantined || !s.rules.Evaluates() {
		return
	}
	o := &s.out.reading // not on the stack: rules may look at it through an interface
	*o = alert.Observation{Time: s.now, Now: s.now}
	sampled := false
	for i := range s.out.Applied {
		if a := &s.out.Applied[i]; !a.Late {
			sampled, o.Time, o.Boot, o.Seq = true, a.Time, a.Boot, a.Seq
		}
	}
	t.book.Evaluate(s.rules, t.id, t, sampled, o, &s.out.Transitions)
}
