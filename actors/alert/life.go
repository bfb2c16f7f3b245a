package alert

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// evidence is what one input says to one rule.
type evidence struct {
	begin  float64 // what begins an alert
	now    float64 // what an alert under way goes by
	at     int64
	sample bool // counts towards ForSamples
	// observation behind it; nil for the rules that watch no metric, which give value and why.
	observation *Observation
	value       float64
	why         string // reason of the transition; empty: the rule's own words
}

// advance takes one alert through its life: PENDING → FIRING → RESOLVED.
func (b *Book) advance(r *compiled, device, metric string, e *evidence, emit *[]Alert) {
	t := b.find(r.ID, metric)
	if t == nil || t.open == nil {
		if level := r.begins(e.begin); level >= 0 {
			b.begin(r, device, b.track(r.ID, metric), level, e, emit)
		}
		return
	}
	a := &t.open.alert
	if a.State == Pending {
		level := r.begins(e.now)
		if level < 0 {
			b.resolve(r, t, e, emit)
			return
		}
		if e.sample {
			t.open.streak++
		}
		if t.open.streak >= r.ForSamples && e.at-a.CreateTime >= int64(r.ForDuration) {
			a.State, a.FireTime, a.Severity = Firing, e.at, r.Levels[level].Severity
			a.changed(r, e, level, emit)
		}
		return
	}
	level := max(r.begins(e.now), r.stays(e.now, a.Severity))
	switch {
	case level < 0:
		if e.at-a.FireTime >= int64(r.MinDwell) {
			b.resolve(r, t, e, emit)
		}
	case r.Levels[level].Severity != a.Severity:
		a.Severity = r.Levels[level].Severity
		a.changed(r, e, level, emit)
	}
}

func (b *Book) begin(r *compiled, device string, t *tracker, level int, e *evidence, emit *[]Alert) {
	t.count++
	t.open = &episode{streak: 1, reads: r.readings()}
	b.count(t.open, +1)
	a := &t.open.alert
	*a = Alert{
		ID: identify(device, r.ID, t.metric, e.at, t.count), Rule: r.ID, Metric: t.metric,
		Severity: r.Levels[level].Severity, State: Pending, CreateTime: e.at,
	}
	if r.immediate() {
		a.State, a.FireTime = Firing, e.at
	}
	a.changed(r, e, level, emit)
}

// resolve ends an alert. One that never fired resolves too, with FireTime 0, for those who watch
// pending ones.
func (b *Book) resolve(r *compiled, t *tracker, e *evidence, emit *[]Alert) {
	b.count(t.open, -1)
	a := &t.open.alert
	a.State, a.ResolveTime = Resolved, e.at
	a.changed(r, e, -1, emit)
	t.open = nil
}

// count keeps the number of open alerts of both sorts, so that a quiet twin need not look for them.
func (b *Book) count(e *episode, by int32) {
	if e.reads {
		b.readings += by
	} else {
		b.timed += by
	}
}

// Reconcile ends the alerts of rules that are gone, off or no longer meant for this twin. Call it
// when rules or tags have changed.
func (b *Book) Reconcile(s *Set, device string, at int64, emit *[]Alert) {
	kept := b.trackers[:0]
	for _, t := range b.trackers {
		r := s.byID[t.rule]
		known := r != nil && r.watches(t.metric) && r.matches(device, b.tags)
		if t.open != nil && (!known || t.open.reads != r.readings()) {
			gone := compiled{Rule: Rule{ID: t.rule, Version: t.open.alert.RuleVersion}}
			b.resolve(&gone, &t, &evidence{at: at, value: t.open.alert.Value, why: "the rule was deleted or changed"}, emit)
		}
		if r != nil {
			kept = append(kept, t)
		}
	}
	clear(b.trackers[len(kept):])
	b.trackers = kept
	b.schedule(s, device, at)
}

// readings says that readings drive the rule, and not messages or time.
func (r *compiled) readings() bool {
	return r.Kind == ZScore || r.Kind == Threshold || r.Kind == Rate
}

// changed notes what caused a transition and emits it.
func (a *Alert) changed(r *compiled, e *evidence, level int, emit *[]Alert) {
	a.UpdateTime, a.RuleVersion = e.at, r.Version
	a.Value = e.value
	if o := e.observation; o != nil {
		a.Value, a.Score = o.Value, o.Plain
		a.BaselineCount, a.BaselineMean, a.BaselineStddev = o.Stats.Count, o.Stats.Mean, o.Stats.Stddev
		a.Boot, a.Seq = o.Boot, o.Seq
	}
	a.Reason = e.why
	if a.Reason == "" {
		a.Reason = reason(r, a, e, level)
	}
	*emit = append(*emit, *a)
}

// identify is the id of a device's n-th alert of a rule and metric.
func identify(device, rule, metric string, created int64, n uint64) uint64 {
	key := make([]byte, 0, len(device)+len(rule)+len(metric)+3+16)
	for _, part := range []string{device, rule, metric} {
		key = append(append(key, part...), 0)
	}
	key = binary.LittleEndian.AppendUint64(key, uint64(created))
	key = binary.LittleEndian.AppendUint64(key, n)
	return xxhash.Sum64(key)
}
