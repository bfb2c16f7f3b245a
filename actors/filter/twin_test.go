package filter_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// operands are ways to reach what a twin shows.
var operands = []string{
	`id`, `version`, `boot`, `seq`, `digest`, `online`, `quarantined`, `reported_version`, `owner`, `epoch`, `stale`,
	`last_seen`, `lastSeen`, `create_time`, `desired`, `delta`, `tags`, `tags.site`, `etag`,
	`metrics`, `metrics.m0`, `metrics["m0"].value`, `metrics.m1.value`, `metrics.m1.z`, `metrics.m0.score`, `metrics.m0.time`,
	`metrics.m0.count`, `metrics.m0.mean`, `metrics.m0.stddev`, `metrics.m0.min`, `metrics.m0.max`, `metrics.m2`,
	`dyn(metrics.m0).value`, `[metrics.m0][0].mean`, `metrics[id == "" ? "m0" : "m1"].value`,
	`counters`, `counters.applied`, `counters.dead_lettered`, `counters.deadLettered`, `dyn(counters).late`,
	`counters.held`, `counters.gaps`, `counters.missing`, `counters.duplicate`,
	`reported`, `reported.a`, `reported.b`, `reported.b.c`, `reported["b"]["d"]`, `reported.nosuch`,
	`open_alerts`, `open_alerts[0]`, `size(open_alerts)`, `size(metrics)`, `size(reported)`, `size(metrics.m0)`,
	`has(metrics.m0)`, `has(metrics.m1.z)`, `has(metrics.m1.value)`, `has(reported.a)`, `has(reported.b.c)`, `has(counters.gaps)`,
	`"m0" in metrics`, `3 in metrics`, `"a" in reported`, `metrics.map(m, metrics[m].value)`, `reported.map(k, k)`, `tags.map(k, tags[k])`, `tags.size()`, `"site" in tags`, `tags["line"]`, `desired_version`, `tags_version`, `diverge_time`, `desired.a`, `delta.a`, `convergence`, `metrics.exists(m, metrics[m].value > 0)`, `metrics.all(m, m != "m1")`,
	`reported.exists(k, k == "b")`, `doppel.v1.Metric{value: 0.5}`, `doppel.v1.Counters{applied: 1u}`,
	`type(metrics)`, `type(metrics.m0)`, `type(counters)`, `string(metrics.m0.value)`,
	`0`, `1u`, `0.5`, `""`, `"d"`, `true`, `null`, `{}`, `[]`, `timestamp(0)`,
}

// TestTwinAndItsMessageAgree asks filters of a twin and of the message made of it.
func TestTwinAndItsMessageAgree(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	matched, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tw := anyTwin(t, rules)
		facts := filter.Facts{Owner: "n1", Epoch: 7, Quarantined: rapid.Bool().Draw(t, "quarantined")}
		msg := filter.Message(tw, facts)
		for range 20 {
			text := anyFilter(t)
			f, err := env.Compile(text)
			if err != nil {
				refused++
				continue
			}
			want, wantErr := f.Matches(msg)
			got, gotErr := f.HoldsTwin(tw, facts)
			if got != want || (gotErr != nil) != (wantErr != nil) {
				t.Fatalf("%s: the twin says %v, %v; its message %v, %v:\n%v", text, got, gotErr, want, wantErr, msg)
			}
			if got {
				matched++
			}
		}
	})
	if matched < 100 {
		t.Errorf("%d filters matched, %d were refused: that compares little", matched, refused)
	}
}

// TestEveryOperandAgrees compares each operand's value with itself in the message, by its text.
func TestEveryOperandAgrees(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	filters := map[string]filter.Filter{}
	for _, a := range operands {
		for _, b := range []string{a, `0`, `metrics.m0`, `counters`, `metrics`, `reported`, `doppel.v1.Metric{value: 0.5}`} {
			for _, op := range []string{"==", "!=", "<="} {
				text := fmt.Sprintf("dyn(%s) %s dyn(%s)", a, op, b)
				if f, err := env.Compile(text); err == nil {
					filters[text] = f
				}
			}
		}
	}
	all := slices.Sorted(maps.Keys(filters))
	rapid.Check(t, func(t *rapid.T) {
		tw := anyTwin(t, rules)
		msg := filter.Message(tw, filter.Facts{})
		for range 150 {
			text := rapid.SampledFrom(all).Draw(t, "filter")
			f := filters[text]
			want, wantErr := f.Matches(msg)
			got, gotErr := f.HoldsTwin(tw, filter.Facts{})
			if got != want || (gotErr != nil) != (wantErr != nil) {
				t.Fatalf("%s: the twin says %v, %v; its message %v, %v:\n%v", text, got, gotErr, want, wantErr, msg)
			}
		}
	})
}

func anyFilter(t *rapid.T) string {
	term := func() string {
		a, b := rapid.SampledFrom(operands).Draw(t, "a"), rapid.SampledFrom(operands).Draw(t, "b")
		return fmt.Sprintf("dyn(%s) %s dyn(%s)", a, rapid.SampledFrom([]string{"==", "!=", "<", ">=", "in"}).Draw(t, "op"), b)
	}
	var b strings.Builder
	b.WriteString(term())
	for range rapid.IntRange(0, 2).Draw(t, "terms") {
		b.WriteString(rapid.SampledFrom([]string{" && ", " || "}).Draw(t, "join"))
		b.WriteString(rapid.SampledFrom([]string{"", "!"}).Draw(t, "not"))
		b.WriteString("(" + term() + ")")
	}
	return b.String()
}

// anyTwin is a twin that has lived through a few inputs.
func anyTwin(t *rapid.T, rules *alert.Set) *twin.Twin {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixNano()
	tw := twin.New("d", now)
	var out twin.Effects
	seq := uint64(0)
	for range rapid.IntRange(0, 50).Draw(t, "inputs") {
		now += int64(time.Second)
		in := twin.Input{ReceivedAt: now}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			in.Kind = twin.KindStatus
			in.Status = twin.Status{Online: rapid.Bool().Draw(t, "online")}
		case 1:
			in.Kind = twin.KindReported
			in.Reported.Patch = []byte(rapid.SampledFrom([]string{`{"a":1}`, `{"a":null}`, `{"b":{"c":[1,"x"],"d":false}}`, `{"b":null,"a":"text"}`}).Draw(t, "patch"))
		case 2:
			in.Kind = twin.KindRefused
			in.Refused.Count = 1
		case 3:
			in.Kind = twin.KindDesired
			in.Desired.Tags = map[string]string{"site": rapid.SampledFrom([]string{"brno", "x"}).Draw(t, "site"), "line": "1"}
			in.Desired.ReplaceTags = rapid.Bool().Draw(t, "replace")
			in.Desired.Patch = []byte(rapid.SampledFrom([]string{`{"a":1}`, `{}`, `{"a":{"b":[2]},"c":null}`}).Draw(t, "desired"))
		default:
			in.Kind = twin.KindSample
			seq += rapid.Uint64Range(1, 2).Draw(t, "step")
			in.Sample = twin.Sample{Numbered: true, Timed: true, Boot: 1, Seq: seq, Time: now}
			for _, name := range []string{"m0", "m1"} {
				if rapid.IntRange(0, 3).Draw(t, name) > 0 {
					in.Sample.Readings = append(in.Sample.Readings, twin.Reading{Name: name, Value: rapid.SampledFrom([]float64{-1, 0, 0.5, 40}).Draw(t, "value")})
				}
			}
			if len(in.Sample.Readings) == 0 {
				in.Sample.Reported = []byte(`{"a":2}`)
			}
		}
		tw.Step(now, &in, rules, &out)
	}
	return tw
}

// exampleOf is a twin like exampleTwin's.
func exampleOf(tb testing.TB, temperature float64) *twin.Twin {
	tb.Helper()
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixNano()
	tw := twin.New("pump-1", now)
	var out twin.Effects
	for i := range uint64(40) {
		now += int64(time.Second)
		tw.Step(now, &twin.Input{Kind: twin.KindSample, ReceivedAt: now, Sample: twin.Sample{
			Numbered: true, Timed: true, Boot: 1, Seq: i + 1, Time: now,
			Readings: []twin.Reading{{Name: "humidity", Value: 40}, {Name: "temperature", Value: temperature}, {Name: "vibration", Value: 0.25}},
		}}, rules, &out)
	}
	return tw
}

func TestLookingAtATwinMakesNoMessage(t *testing.T) {
	tw := exampleOf(t, 82)
	env := mustEnv(t, &doppelv1.Twin{})
	for _, text := range []string{`online && metrics["temperature"].value > 80`, `size(open_alerts) == 0 && counters.applied == 40`} {
		f, err := env.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		lazy := testing.AllocsPerRun(100, func() { _, _ = f.HoldsTwin(tw, filter.Facts{}) })
		whole := testing.AllocsPerRun(100, func() { _, _ = f.Matches(filter.Message(tw, filter.Facts{})) })
		looking := bytesPerRun(100, func() { _, _ = f.HoldsTwin(tw, filter.Facts{}) })
		making := bytesPerRun(100, func() { _ = filter.Message(tw, filter.Facts{}) })
		if ok, err := f.HoldsTwin(tw, filter.Facts{}); !ok || err != nil {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
		if lazy >= whole {
			t.Errorf("%s: %v allocations, %v with a message", text, lazy, whole)
		}
		if looking > making {
			t.Errorf("%s: %d bytes, the message alone costs %d", text, looking, making)
		}
	}
}

// bytesPerRun is what fn allocates.
func bytesPerRun(runs uint64, fn func()) uint64 {
	var before, after runtime.MemStats
	fn() // what is made once
	runtime.ReadMemStats(&before)
	for range runs {
		fn()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

func BenchmarkFilter(b *testing.B) {
	for _, text := range []string{
		`online`,
		`online && metrics["temperature"].value > 80`,
		`online && metrics["temperature"].value > 80 && id.startsWith("pump-") && counters.missing == 0`,
	} {
		f, err := mustEnv(b, &doppelv1.Twin{}).Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		tw := exampleOf(b, 82)
		name := strings.Join(slices.DeleteFunc(strings.Fields(text), func(s string) bool { return len(s) < 3 }), "_")
		b.Run("twin/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.HoldsTwin(tw, filter.Facts{}); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run("message/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Matches(filter.Message(tw, filter.Facts{})); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
