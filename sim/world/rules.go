package world

import (
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// rules fire often under the load, and wait for event time and for logged ticks.
func rules() *alert.Set {
	hot := []alert.Level{{Severity: alert.Warning, Enter: 50, Exit: 40, Op: ">"}}
	return must(alert.NewSet([]alert.Rule{
		{ID: "hot", Version: 1, Kind: alert.Threshold, Metric: "t", ForSamples: 2, Levels: hot},
		{ID: "stays-hot", Version: 1, Kind: alert.Threshold, Metric: "t", ForDuration: 60 * time.Millisecond, Levels: hot},
		{
			ID: "nags", Version: 1, Kind: alert.Threshold, Metric: "t", EscalateAfter: 150 * time.Millisecond, FlapCount: 2, FlapWindow: 300 * time.Millisecond,
			Levels: hot,
		},
		{ID: "tried", Version: 1, Kind: alert.Threshold, Metric: "t", Mode: alert.ModeShadow, Levels: hot},
		{ID: "often", Version: 1, Kind: alert.Expression, Expression: "applied", Predicate: applied{}, ForDuration: 40 * time.Millisecond, Levels: []alert.Level{{Severity: alert.Critical}}},
		{ID: "quiet", Version: 1, Kind: alert.Stale, ForDuration: 400 * time.Millisecond, Levels: []alert.Level{{Severity: alert.Info}}},
	}))
}

// applied holds for every other handful of samples of a twin.
type applied struct{}

// Holds implements alert.Predicate.
func (applied) Holds(of any) (bool, error) {
	t, ok := of.(*twin.Twin)
	if !ok {
		return false, errNoTwin
	}
	return t.Counters().Applied%10 >= 5, nil
}

var errNoTwin = errors.New("not a twin")

// ordered draws the rules that people want next, and the silences beside them.
func (w *World) ordered(r *rand.Rand) {
	level := func(enter float64) map[string]*doppelv1.Level {
		return map[string]*doppelv1.Level{"warning": {Enter: enter, Exit: enter - 10, Op: ">"}}
	}
	version := uint64(len(w.orders) + 2)
	all := []*doppelv1.Rule{
		{Id: "hot", Kind: "threshold", Metric: "t", ForSamples: 1 + r.Uint32N(3), Levels: level(40 + 10*float64(r.IntN(4)))},
		{Id: "stays-hot", Kind: "threshold", Metric: "t", ForDuration: durationpb.New(60 * time.Millisecond), Levels: level(50)},
		{Id: "quiet", Kind: "stale", ForDuration: durationpb.New(time.Duration(1+r.IntN(6)) * 100 * time.Millisecond), Levels: map[string]*doppelv1.Level{"info": {}}},
		{Id: "gone", Kind: "offline", Levels: map[string]*doppelv1.Level{"critical": {}}},
		{Id: "hotter", Kind: "expression", Expression: `metrics["t"].value > 60.0`, Levels: map[string]*doppelv1.Level{"info": {}}},
		{Id: "jumps", Kind: "rate", Metric: "t", EscalateAfter: durationpb.New(300 * time.Millisecond), Levels: level(20)},
	}
	in := &doppelv1.RulesInput{Offset: version - 1}
	for _, rule := range all {
		rule.Version = version
		if rule.Mode = [...]string{"live", "live", "shadow", "off"}[r.IntN(4)]; r.IntN(3) > 0 {
			in.Rules = append(in.Rules, rule)
		}
	}
	if r.IntN(2) == 0 {
		end := w.now + r.Int64N(int64(2*time.Second))
		in.Silences = append(in.Silences, &doppelv1.Silence{Id: "s", Filter: `severity != "CRITICAL"`, EndTime: timestamppb.New(time.Unix(0, end))})
	}
	w.orders = append(w.orders, w.lab.compiler.Compile(must(ruleset.Encode(in))))
	w.counts.orders++
	w.tracef("rules %d are wanted: %v", in.GetOffset(), in)
}

// obey lets p hear of rules that are wanted: those of some time ago, or the newest ones.
func (p *process) obey(newest bool) {
	w := p.w
	if len(w.orders) == 0 {
		return
	}
	i := len(w.orders) - 1
	if !newest {
		i -= min(i, w.rng.IntN(2))
	}
	p.host.SetRules(w.orders[i])
}

// enact goes over to the rules of a record, none: of a Claim, which puts those in force that a node brings itself.
func (j *judge) enact(encoded []byte) {
	if len(encoded) == 0 {
		j.rules, j.ruled = j.w.lab.rules, 0
		return
	}
	set := j.w.lab.compiler.Compile(encoded)
	if len(set.Skipped) > 0 {
		j.fail("rules that were compiled once are not any more: %v", set.Skipped)
	}
	if set.Offset < j.latest {
		j.fail("rules %d come in force behind rules %d", set.Offset, j.latest)
	}
	j.rules, j.ruled, j.latest = set.Alerts, set.Offset, set.Offset
	j.w.counts.enacted++
}

// obeyed sees that the newest rules are in force everywhere.
func (w *World) obeyed() {
	for _, s := range w.shards {
		if n := len(w.orders); n > 0 && s.judge.latest != w.orders[n-1].Offset {
			s.judge.fail("the newest rules there were are %d, wanted are %d", s.judge.latest, w.orders[n-1].Offset)
		}
		for id, tw := range s.judge.twins {
			due := tw.Due()
			if waits := due != 0 && due <= w.now; !waits && w.climate.skew == 0 && tw.Concerned(s.judge.rules, w.now) {
				s.judge.fail("%s was not held against the newest rules", id)
			}
		}
	}
}
