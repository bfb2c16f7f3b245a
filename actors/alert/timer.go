package alert

// Timers of open alerts that no input drives: escalation, the end of a silence, the end of flapping, and
// expressions, which hold as long as no input says otherwise.

// dueTimers is when the first of them has something to do.
func (b *Book) dueTimers(s *Set) int64 {
	due := int64(never)
	for i := range b.trackers {
		t := &b.trackers[i]
		if t.open == nil {
			continue
		}
		if r := s.byID[t.rule]; r != nil {
			due = min(due, t.open.due(s, r))
		}
	}
	return due
}

func (e *episode) due(s *Set, r *compiled) int64 {
	due := int64(never)
	if e.alert.Silence != "" {
		due = s.ends(e.alert.Silence)
	}
	if e.alert.State == Pending {
		if r.Kind == Expression && e.streak >= r.ForSamples {
			due = min(due, e.entered+int64(r.ForDuration))
		}
		return due
	}
	if e.calmed != 0 {
		due = min(due, e.over(r))
	}
	if e.escalates(r) {
		due = min(due, e.entered+int64(r.EscalateAfter))
	}
	return due
}

// over is when an alert that is withheld from resolving may, if nothing comes.
func (e *episode) over(r *compiled) int64 {
	end := e.entered + int64(r.MinDwell)
	if e.alert.Flapping {
		end = max(end, e.calmed+int64(r.FlapWindow))
	}
	return end
}

// escalates says that the alert is to be raised unless somebody looks after it.
func (e *episode) escalates(r *compiled) bool {
	a := &e.alert
	return r.EscalateAfter > 0 && a.State == Firing && a.AcknowledgeTime == 0 && a.EscalateTime == 0 && a.Severity < Critical
}

// runTimers does what is due.
func (b *Book) runTimers(in *turn) {
	for i := range b.trackers {
		t := &b.trackers[i]
		if t.open == nil {
			continue
		}
		if r := in.set.byID[t.rule]; r != nil {
			b.runTimer(in, r, t)
		}
	}
}

func (b *Book) runTimer(in *turn, r *compiled, t *tracker) {
	e, a := t.open, &t.open.alert
	switch {
	case a.State == Pending:
		if r.Kind == Expression && e.streak >= r.ForSamples && in.now >= e.entered+int64(r.ForDuration) {
			b.fire(in, r, t, 0, &evidence{at: in.now, now: 1, value: a.Value})
			return
		}
	case e.calmed != 0 && in.now >= e.over(r):
		over := evidence{at: in.now, value: a.Value}
		if a.Flapping {
			over.why = "it was quiet for " + duration(r.FlapWindow)
		}
		b.resolve(in, r, t, &over)
		return
	case e.escalates(r) && in.now >= e.entered+int64(r.EscalateAfter):
		a.EscalateTime = in.now
		a.Severity = e.shown()
		a.Reason += "; not acknowledged for " + duration(r.EscalateAfter)
		b.tell(in, a, in.now)
		return
	}
	b.resilence(in, a)
}

// resilence tells of an alert that a silence has begun or ceased to hold.
func (b *Book) resilence(in *turn, a *Alert) {
	if in.set.holding(in.device, b.tags, a, in.now) != a.Silence {
		b.tell(in, a, in.now)
	}
}
