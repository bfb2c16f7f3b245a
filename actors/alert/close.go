package alert

// Close ends every open alert: its twin is deleted. The Book is good for nothing afterwards.
func (b *Book) Close(s *Set, device string, at int64, emit *[]Alert) {
	in := turn{s, device, at, emit}
	for i := range b.trackers {
		t := &b.trackers[i]
		if t.open == nil {
			continue
		}
		a := &t.open.alert
		gone := compiled{Rule: Rule{ID: t.rule, Version: a.RuleVersion}}
		b.resolve(&in, &gone, t, &evidence{at: at, value: a.Value, why: "the twin was deleted"})
	}
}
