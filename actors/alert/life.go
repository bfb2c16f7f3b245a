package alert

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// turn is one call of a Book: the rules in force, whose book it is, the logged time, and where transitions go.
type turn struct {
	set    *Set
	device string
	now    int64
	emit   *[]Alert
}

// evidence is what one input says to one rule.
type evidence struct {
	begin  float64 // what begins an alert
	now    float64 // what an alert under way goes by
	at     int64
	sample bool // counts towards ForSamples; at is event time
	// observation behind it; nil for the rules that watch no metric, which give value and why.
	observation *Observation
	value       float64
	why         string // reason of the transition; empty: the rule's own words
}

// episode is an open alert.
type episode struct {
	alert  Alert
	streak uint32 // samples in breach while pending
	breach int64  // of a gap: when the last one came
	reads  bool   // readings drive it

	base    Severity // what the evidence gives it; escalation may show one more
	entered int64    // when it came into its state: logged time if its rule has timers, else that of its evidence
	below   int64    // event time since which readings are below base's exit; 0: they are not
	// Since when it would have resolved and is withheld, in the time of its evidence and in logged time;
	// 0: it is not.
	calm, calmed int64
}

// shown is the severity that people see.
func (e *episode) shown() Severity {
	if e.alert.EscalateTime != 0 {
		return min(e.base+1, Critical)
	}
	return e.base
}

// lasted is how long ago something was, given in both times: with a sample by event time, else by logged time.
func (in *turn) lasted(event, logged int64, e *evidence) int64 {
	if e.sample {
		return e.at - event
	}
	return in.now - logged
}

// clock is what an alert's own timers count from. Alerts of rules without any keep no second time.
func (r *compiled) clock(in *turn, e *evidence) int64 {
	if r.timed() {
		return in.now
	}
	return e.at
}

// advance takes one alert through its life: PENDING → FIRING → RESOLVED.
func (b *Book) advance(in *turn, r *compiled, metric string, e *evidence) {
	t := b.find(r.ID, metric)
	switch {
	case t == nil || t.open == nil:
		if level := r.begins(e.begin); level >= 0 {
			b.begin(in, r, b.track(r.ID, metric), level, e)
		}
	case t.open.alert.State == Pending:
		b.ripen(in, r, t, e)
	default:
		b.burn(in, r, t, e)
	}
}

func (b *Book) begin(in *turn, r *compiled, t *tracker, level int, e *evidence) {
	t.count++
	t.open = &episode{streak: 1, reads: r.readings(), base: r.Levels[level].Severity, entered: r.clock(in, e)}
	b.count(t.open, +1)
	t.open.alert = Alert{
		ID: identify(in.device, r.ID, t.metric, e.at, t.count), Rule: r.ID, Metric: t.metric,
		Severity: r.Levels[level].Severity, State: Pending, CreateTime: e.at, Shadow: r.shadow(),
	}
	if r.immediate() {
		b.fire(in, r, t, level, e)
		return
	}
	b.changed(in, r, t.open, level, e)
}

// ripen judges a pending alert.
func (b *Book) ripen(in *turn, r *compiled, t *tracker, e *evidence) {
	level := r.begins(e.now)
	if level < 0 {
		b.resolve(in, r, t, e)
		return
	}
	if e.sample {
		t.open.streak++
	}
	if t.open.streak >= r.ForSamples && in.lasted(t.open.alert.CreateTime, t.open.entered, e) >= int64(r.ForDuration) {
		b.fire(in, r, t, level, e)
	}
}

func (b *Book) fire(in *turn, r *compiled, t *tracker, level int, e *evidence) {
	a := &t.open.alert
	a.State, a.FireTime = Firing, e.at
	t.open.entered, t.open.base = r.clock(in, e), r.Levels[level].Severity
	a.Severity = t.open.shown()
	if a.Flapping = t.flaps(r, e.at); a.Flapping {
		if e.why == "" {
			r.note(a, e)
			e.why = reason(r, a, e, level)
		}
		e.why += flapReason(r)
	}
	b.changed(in, r, t.open, level, e)
}

// burn judges a firing alert.
func (b *Book) burn(in *turn, r *compiled, t *tracker, e *evidence) {
	o, level := t.open, r.begins(e.now)
	if o.calmed == 0 { // else hysteresis is behind it
		level = max(level, r.stays(e.now, o.base))
	}
	if level < 0 {
		b.calmDown(in, r, t, e)
		return
	}
	o.calm, o.calmed = 0, 0
	severity := r.Levels[level].Severity
	if severity < o.base {
		if o.below == 0 {
			o.below = e.at
		}
		if e.at-o.below < int64(r.DeescalateAfter) {
			return
		}
		if r.EscalateAfter > 0 { // who looks after the milder one has that time again
			o.entered = in.now
		}
	}
	o.below, o.base = 0, severity
	if a := &o.alert; o.shown() != a.Severity {
		a.Severity = o.shown()
		b.changed(in, r, o, level, e)
	}
}

// calmDown resolves an alert that has no reason any more, once it may.
func (b *Book) calmDown(in *turn, r *compiled, t *tracker, e *evidence) {
	o := t.open
	if o.calmed == 0 && (o.alert.Flapping || r.Kind == Expression) {
		o.calm, o.calmed = e.at, max(in.now, 1)
	}
	if in.lasted(o.alert.FireTime, o.entered, e) < int64(r.MinDwell) {
		return
	}
	if o.alert.Flapping && in.lasted(o.calm, o.calmed, e) < int64(r.FlapWindow) {
		return
	}
	b.resolve(in, r, t, e)
}

// resolve ends an alert. One that never fired resolves too, with FireTime 0, for those who watch
// pending ones.
func (b *Book) resolve(in *turn, r *compiled, t *tracker, e *evidence) {
	b.count(t.open, -1)
	a := &t.open.alert
	a.State, a.ResolveTime = Resolved, e.at
	b.changed(in, r, t.open, -1, e)
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

// keepGone is of how many rules and metrics that are gone the number of alerts is kept.
const keepGone = 128

// Reconcile makes open alerts those of the rules and silences in force: it ends those of rules that are gone,
// off, no longer meant for this twin, or in shadow now; it promotes those of rules that left the shadow; and
// it tells of those that a silence has begun or ceased to hold. Call it when rules, silences have changed.
func (b *Book) Reconcile(s *Set, device string, at int64, emit *[]Alert) {
	b.renew(s, device, at, false, emit)
}

// Retag gives the twin other tags: rules and silences may mean it now, or not any more, and its open alerts bear
// the new ones. The map is kept and must not change afterwards.
func (b *Book) Retag(s *Set, device string, tags map[string]string, at int64, emit *[]Alert) {
	told := !maps.Equal(b.tags, tags)
	b.tags = tags
	b.renew(s, device, at, told, emit)
}

// renew goes over to other rules or tags; tell: of every open alert that stays, if of nothing else.
func (b *Book) renew(s *Set, device string, at int64, tell bool, emit *[]Alert) {
	in := turn{s, device, at, emit}
	gone := 0
	for i := range b.trackers {
		t := &b.trackers[i]
		r := s.byID[t.rule]
		if t.open != nil {
			b.reconcile(&in, r, t, tell)
		}
		if r == nil { // it may come back: only how many alerts it had is kept, so that no id comes twice
			t.previous, t.fires = nil, nil
			gone++
		}
	}
	b.trackers = slices.DeleteFunc(b.trackers, func(t tracker) bool {
		forgotten := s.byID[t.rule] == nil && (t.count == 0 || gone > keepGone)
		if forgotten {
			gone--
		}
		return forgotten
	})
	if b.offline { // a rule may be new
		b.judgeOffline(&in)
	}
	if b.diverged != 0 {
		b.judgeDiverged(&in)
	}
	b.schedule(s, device, at)
}

func (b *Book) reconcile(in *turn, r *compiled, t *tracker, tell bool) {
	a := &t.open.alert
	end := func(why string) {
		gone := compiled{Rule: Rule{ID: t.rule, Version: a.RuleVersion}}
		b.resolve(in, &gone, t, &evidence{at: in.now, value: a.Value, why: why})
	}
	switch {
	case r == nil || !r.watches(t.metric) || !r.matches(in.device, b.tags) || t.open.reads != r.readings():
		end("the rule was deleted or changed")
	case r.shadow() && !a.Shadow:
		end("the rule runs in shadow now")
	case a.Flapping && r.FlapCount == 0 && t.open.calmed != 0:
		b.resolve(in, r, t, &evidence{at: in.now, value: a.Value, why: "it is quiet, and the rule minds no flapping any more"})
	case a.Shadow && !r.shadow():
		a.Shadow, a.RuleVersion, a.Flapping = false, r.Version, a.Flapping && r.FlapCount > 0
		b.tell(in, a, in.now)
	case a.Flapping && r.FlapCount == 0:
		a.Flapping = false
		b.tell(in, a, in.now)
	case tell:
		b.tell(in, a, in.now)
	default:
		b.resilence(in, a)
	}
}

// readings says that readings drive the rule, and not messages or time.
func (r *compiled) readings() bool { return readings(r.Kind) }

func readings(k Kind) bool { return k == ZScore || k == Threshold || k == Rate }

// changed notes what caused a transition and tells of it.
func (b *Book) changed(in *turn, r *compiled, o *episode, level int, e *evidence) {
	a := &o.alert
	r.note(a, e)
	if a.Reason = e.why; a.Reason == "" {
		a.Reason = reason(r, a, e, level)
	}
	b.tell(in, a, e.at)
}

// note keeps what an alert's newest transition goes by.
func (r *compiled) note(a *Alert, e *evidence) {
	a.RuleVersion = r.Version
	a.Value = e.value
	if o := e.observation; o != nil {
		a.Value, a.Score = o.Value, o.Plain
		a.BaselineCount, a.BaselineMean, a.BaselineStddev = o.Stats.Count, o.Stats.Mean, o.Stats.Stddev
		a.Boot, a.Seq = o.Boot, o.Seq
	}
}

// tell emits an alert as it stands.
func (b *Book) tell(in *turn, a *Alert, at int64) {
	a.UpdateTime = at
	a.Silence = in.set.holding(in.device, b.tags, a, in.now)
	*in.emit = append(*in.emit, *a)
	(*in.emit)[len(*in.emit)-1].Tags = b.tags
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
