package alert

import (
	"cmp"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/baseline"
)

// Observation is one reading of a sample that was applied in order.
type Observation struct {
	Metric       string
	Value        float64
	Scored       bool           // Plain and Score mean something
	Plain, Score float64        // of the baseline: without and with peak hold
	Stats        baseline.Stats // window that Value was scored against
	Boot, Seq    uint64
	Time         int64 // event time, unix nanoseconds
	Now          int64 // logged time of the input that applied it; 0: Time
}

// Book is what one twin remembers of its alerts. The zero value is ready and takes a few words until
// the first breach. Its twin owns it; every method takes the rules in force and appends what changed
// to emit.
type Book struct {
	trackers []tracker // one for each rule and metric that was ever in breach, in order of that

	tags     map[string]string
	lastSeen int64 // newest receive time, 0: none
	since    int64 // the clock of silence starts again here: when the device came back online
	interval int64 // learned distance of receive times, ns
	due      int64
	diverged int64  // since when reported is not what is desired, 0: it is
	seen     uint32 // distinct receive times, up to learnedAfter
	readings int32  // open alerts that readings drive
	timed    int32  // all other open alerts
	offline  bool
}

// tracker is what is remembered of one rule and metric.
type tracker struct {
	rule, metric string
	count        uint64 // alerts so far
	open         *episode
	previous     *point  // of a rate rule
	fires        []int64 // when the newest alerts fired, where flapping is looked for
}

// point is a reading to measure the next one's rate against.
type point struct {
	time  int64
	value float64
}

// SetTags says what tags the twin has now. The map is kept and must not change afterwards.
func (b *Book) SetTags(tags map[string]string) { b.tags = tags }

// Sample judges one reading. Call it once for every reading of a sample applied in order.
func (b *Book) Sample(s *Set, device string, o *Observation, emit *[]Alert) {
	if b.readings == 0 && len(s.value) == 0 && !(o.Scored && math.Abs(o.Score) >= s.least) {
		return
	}
	in := turn{s, device, o.logged(), emit}
	before := len(*emit)
	if o.Scored {
		for _, r := range s.zscore {
			if r.watches(o.Metric) && r.matches(device, b.tags) && o.Stats.Count >= uint64(r.MinSamples) {
				b.judge(&in, r, o, math.Abs(o.Score), math.Abs(o.Plain))
			}
		}
	}
	for _, r := range s.value {
		if !r.watches(o.Metric) || !r.matches(device, b.tags) {
			continue
		}
		if r.Kind == Threshold {
			b.judge(&in, r, o, o.Value, o.Value)
		} else if rate, ok := b.rate(r, o); ok {
			b.judge(&in, r, o, rate, rate)
		}
	}
	if s.timers && (b.readings > 0 || len(*emit) > before) {
		b.schedule(s, device, in.now)
	}
}

func (o *Observation) logged() int64 {
	if o.Now == 0 {
		return o.Time
	}
	return o.Now
}

func (b *Book) judge(in *turn, r *compiled, o *Observation, begin, now float64) {
	e := evidence{begin: begin, now: now, at: o.Time, sample: true, observation: o}
	b.advance(in, r, o.Metric, &e)
}

// rate is the change per second since the reading before. Time that does not advance gives none.
func (b *Book) rate(r *compiled, o *Observation) (perSecond float64, ok bool) {
	t := b.track(r.ID, o.Metric)
	before := t.previous
	if before == nil {
		t.previous = &point{time: o.Time, value: o.Value}
		return 0, false
	}
	if o.Time <= before.time {
		return 0, false
	}
	perSecond = (o.Value - before.value) / (float64(o.Time-before.time) / 1e9)
	*before = point{time: o.Time, value: o.Value}
	return perSecond, math.Abs(perSecond) <= math.MaxFloat64
}

// Evaluate judges the expression rules after an input that changed the twin; sampled says that o is the newest
// sample which that applied, and not a moment alone. An expression that fails, such as one over a metric that is
// not there, changes nothing.
func (b *Book) Evaluate(s *Set, device string, twin any, sampled bool, o *Observation, emit *[]Alert) {
	in := turn{s, device, o.logged(), emit}
	for _, r := range s.expression {
		if !r.matches(device, b.tags) {
			continue
		}
		holds, err := r.Predicate.Holds(twin)
		if err != nil {
			continue
		}
		v := 0.0
		if holds {
			v = 1
		}
		b.advance(&in, r, "", &evidence{begin: v, now: v, at: o.Time, sample: sampled, observation: o})
	}
	b.schedule(s, device, in.now)
}

// Open lists pending and firing alerts, oldest first.
func (b *Book) Open() []Alert {
	var open []Alert
	for i := range b.trackers {
		if e := b.trackers[i].open; e != nil {
			open = append(open, e.alert)
		}
	}
	slices.SortFunc(open, func(x, y Alert) int {
		return cmp.Or(cmp.Compare(x.CreateTime, y.CreateTime), cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Metric, y.Metric))
	})
	return open
}

// Quiet says that no alert is open.
func (b *Book) Quiet() bool { return b.readings == 0 && b.timed == 0 }

// Firing says that an alert fires whose rule is live.
func (b *Book) Firing() bool {
	if b.readings+b.timed == 0 {
		return false
	}
	for i := range b.trackers {
		if e := b.trackers[i].open; e != nil && e.alert.State == Firing && !e.alert.Shadow {
			return true
		}
	}
	return false
}

// find returns the tracker of a rule and metric, or nil. It is good until the next call of track.
func (b *Book) find(rule, metric string) *tracker {
	for i := range b.trackers {
		if t := &b.trackers[i]; t.rule == rule && t.metric == metric {
			return t
		}
	}
	return nil
}

// track is find that makes what is not there.
func (b *Book) track(rule, metric string) *tracker {
	if t := b.find(rule, metric); t != nil {
		return t
	}
	b.trackers = append(b.trackers, tracker{rule: rule, metric: metric})
	return &b.trackers[len(b.trackers)-1]
}
