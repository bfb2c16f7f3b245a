package twin_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

var ruledFlag = flag.Int("ruled", 60, "how many twins TestRulesChange steps")

// when is a predicate over a twin or an alert.
type when func(any) bool

// Holds implements alert.Predicate.
func (w when) Holds(of any) (bool, error) { return w(of), nil }

// anyRules draws a set of rules of few ids: a rule may be of another kind than the one of its id before it.
func anyRules(tb testing.TB, r *rand.Rand, now int64) *alert.Set {
	tb.Helper()
	some := func(unit time.Duration) time.Duration { return time.Duration(r.IntN(4)) * unit }
	var rules []alert.Rule
	for i := range 3 {
		if r.IntN(3) == 0 {
			continue
		}
		rule := alert.Rule{
			ID: fmt.Sprintf("r%d", i), Version: uint64(r.IntN(5)), MinDwell: some(time.Second), EscalateAfter: some(time.Second),
			Mode: []string{"live", "live", "shadow"}[r.IntN(3)], Levels: []alert.Level{{Severity: alert.Severity(1 + r.IntN(3))}},
		}
		if r.IntN(3) == 0 {
			rule.FlapCount, rule.FlapWindow = 1+r.Uint32N(2), time.Duration(1+r.IntN(5))*time.Second
		}
		if r.IntN(4) == 0 {
			rule.Tags = map[string]string{"site": "a"}
		}
		switch r.IntN(9) {
		case 0:
			rule.Kind, rule.Metric, rule.Levels[0].Enter, rule.Levels[0].Exit = alert.Threshold, "t", 50, 40
			rule.ForSamples, rule.ForDuration, rule.DeescalateAfter = r.Uint32N(3), some(time.Second), some(time.Second)
		case 1:
			rule.Kind, rule.Levels[0].Enter = alert.Rate, 10
		case 2:
			rule.Kind, rule.ForDuration = alert.Stale, some(2*time.Second)
		case 3:
			rule.Kind, rule.ForDuration = alert.Offline, some(time.Second)
		case 4:
			rule.Kind, rule.Window = alert.Gap, some(time.Second)
		case 5:
			rule.Kind, rule.Window = alert.Numbering, some(time.Second)
		case 6:
			rule.Kind, rule.Window, rule.Levels[0].Enter = alert.DeadLetters, some(time.Second), float64(1+r.IntN(3))
		case 7:
			rule.Kind, rule.ForDuration = alert.Diverged, some(time.Second)
		case 8:
			odd := uint64(2 + r.IntN(3))
			rule.Kind, rule.Expression, rule.ForSamples, rule.ForDuration = alert.Expression, "odd", r.Uint32N(3), some(time.Second)
			rule.Predicate = when(func(of any) bool { tw, ok := of.(*twin.Twin); return ok && tw.Version()/odd%2 == 1 })
		}
		rules = append(rules, rule)
	}
	var silences []alert.Silence
	if r.IntN(3) == 0 {
		silences = append(silences, alert.Silence{ID: "s", End: now + int64(some(2*time.Second)), Match: when(func(of any) bool {
			v, ok := of.(*alert.View)
			return ok && v.Alert.Severity != alert.Critical
		})})
	}
	set, err := alert.NewSet(rules, silences...)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// TestRulesChange: whatever rules come in force while whatever happens to a twin, time alone soon has nothing more to do, a
// review leaves nothing to review, and a twin that was stored and read goes on like the one it was.
func TestRulesChange(t *testing.T) {
	for seed := range uint64(*ruledFlag) {
		r := rand.New(rand.NewPCG(seed, 7))
		now := int64(1_750_000_000_000_000_000)
		rules := anyRules(t, r, now)
		tw := twin.New("d", now)
		var fx, again twin.Effects
		step := func(in twin.Input) {
			var copied twin.Twin
			if err := copied.Decode("d", tw.Encode(nil), nil); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if copied.Hash() != tw.Hash() {
				t.Fatalf("seed %d: stored and read it is another twin", seed)
			}
			tw.Step(now, &in, rules, &fx)
			copied.Step(now, &in, rules, &again)
			if copied.Hash() != tw.Hash() || again.Outcome != fx.Outcome || again.Tell != fx.Tell || len(again.Transitions) != len(fx.Transitions) {
				t.Fatalf("seed %d: stored and read it went on another way, with %v instead of %v", seed, again, fx)
			}
			tw.TakeDuplicates()
		}
		seq, boot := uint64(0), uint64(1)
		for i := range 300 {
			if now += r.Int64N(int64(time.Second)); r.IntN(100) == 0 {
				now += int64(25 * time.Hour) // the numbering of a deleted twin is forgotten
			}
			for n := 0; ; n++ {
				in, ok := tw.Wake(now, twin.SettledLimits())
				if !ok {
					break
				}
				if step(in); !fx.Outcome.Logged() || n > 100 {
					t.Fatalf("seed %d, input %d: %d times due at %d, and still: outcome %v, alerts %v", seed, i, n, tw.Due()-now, fx.Outcome, tw.AllOpenAlerts())
				}
			}
			in := twin.Input{ReceivedAt: now}
			switch r.IntN(14) {
			case 0, 1, 2, 3, 4:
				in.Kind = twin.KindSample
				switch seq++; r.IntN(8) {
				case 0:
					seq++
				case 1:
					boot, seq = boot+1, 1
				}
				in.Sample = twin.Sample{
					Numbered: true, Boot: boot, Seq: seq, Timed: true, Time: now - r.Int64N(int64(time.Second)),
					Readings: []twin.Reading{{Name: "t", Value: float64(r.IntN(100))}},
				}
			case 5:
				in.Kind, in.Status = twin.KindStatus, twin.Status{Online: r.IntN(2) == 0, HasSession: true, Boot: boot, Session: uint64(i)}
			case 6:
				in.Kind, in.Reported = twin.KindReported, twin.Reported{Patch: fmt.Appendf(nil, `{"rate":%d}`, r.IntN(2))}
			case 7:
				in.Kind = twin.KindDesired
				in.Desired = twin.Desired{Patch: fmt.Appendf(nil, `{"rate":%d,"_sampling":{"interval_ms":%d,"alert_interval_ms":1}}`, r.IntN(2), 5+r.IntN(2))}
			case 8:
				in.Kind, in.Desired = twin.KindDesired, twin.Desired{Tags: map[string]string{"site": string(rune('a' + r.IntN(2)))}}
			case 9:
				in.Kind, in.Refused = twin.KindRefused, twin.Refused{Count: 1, Numbered: r.IntN(2) == 0, Boot: boot, Seq: seq + 1, Reason: twin.NotFinite}
				if r.IntN(2) == 0 {
					in.Refused.Reason, in.Refused.Boot = twin.StaleBoot, 0
				}
			case 10:
				if open := tw.AllOpenAlerts(); len(open) > 0 {
					in.Kind, in.Acknowledgement = twin.KindAcknowledged, alert.Acknowledgement{Alert: open[r.IntN(len(open))].ID, By: "x"}
				}
			case 11:
				if in.Kind = twin.KindReset; r.IntN(4) == 0 {
					in.Kind = twin.KindDeleted
				}
			default:
				rules = anyRules(t, r, now)
				if !tw.Concerned(rules, now) {
					continue
				}
				if step(twin.Input{Kind: twin.KindReviewed, ReceivedAt: now}); tw.Concerned(rules, now) {
					t.Fatalf("seed %d, input %d: there is still something to review: due in %d, %v", seed, i, tw.Due()-now, tw.AllOpenAlerts())
				}
				continue
			}
			if in.Kind != 0 {
				step(in)
			}
		}
	}
}
