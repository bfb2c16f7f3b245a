package filter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// parts are expressions of the kinds that a plan takes apart, and of others.
var parts = []string{
	`online`, `!online`, `online == true`, `online != true`, `false == online`, `quarantined`, `!quarantined`,
	`size(open_alerts) > 0`, `openAlerts.size() == 0`, `0 != size(open_alerts)`, `size(open_alerts) >= 2`, `1 > size(open_alerts)`, `size(open_alerts) == 2`,
	`version > 3`, `3u <= version`, `version != 4.5`, `version > -1`, `version < 9007199254740993`, `reported_version == 0`, `reportedVersion > 0`,
	`digest == 0`, `digest > 9007199254740992`, `counters.applied >= 1`, `counters.deadLettered == 0`, `counters.dead_lettered > 0`, `counters.missing < 1`, `counters.gaps != 0`,
	`counters.late == 0`, `counters.duplicate == 0`, `counters.held > 0`,
	`metrics.m0.value > 0`, `metrics["m0"].value <= 0`, `metrics["m1"].value == 0.5`, `metrics["m1"].value != 40`, `-1 < metrics.m1.value`, `metrics["m0"].value == -1`, `metrics.m2.value > 0`, `metrics.m2.value != 0`,
	`id == "d"`, `id != "d"`, `id.startsWith("d")`, `id.endsWith("x")`, `id.contains("")`, `"e" > id`, `id < "d"`,
	`last_seen > timestamp("2026-11-22T10:00:05Z")`, `lastSeen == timestamp("2026-11-22T10:00:05Z")`, `last_seen != timestamp("2026-11-22T10:00:05Z")`, `create_time <= timestamp("2026-11-22T10:00:00Z")`,
	`tags.site == "brno"`, `has(tags.site)`, `"line" in tags`, `tags.site > "a"`, `has(tags.nosuch)`, `tags["line"] != "1"`, `tags["site"] != "brno"`, `has(metrics.m0)`, `metrics.m0.z > 1`, `reported.a == 1`, `true`, `false`, `"m0" in metrics`,
	`online && version > 2`, `online || version > 2`, `(online || quarantined) && metrics.m0.value > 0`, `tags.site == "x" || version > 3`, `!(metrics.m0.value > 0)`,
}

// TestPlanAgrees asks plans, of twins and of looks at their encodings, what filters say of their messages.
func TestPlanAgrees(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	matched, exact := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tw := anyTwin(t, rules)
		facts := filter.Facts{Owner: "n1", Quarantined: rapid.IntRange(0, 3).Draw(t, "quarantined") == 0}
		msg := filter.Message(tw, facts)
		var peek twin.Peek
		if !peek.Look(tw.ID(), tw.Encode(nil), nil) {
			t.Fatal("a look fails")
		}
		for range 10 {
			texts := rapid.SliceOfN(rapid.SampledFrom(parts), 1, 3).Draw(t, "parts")
			for i := range texts {
				texts[i] = "(" + texts[i] + ")"
			}
			text := strings.Join(texts, " && ")
			f, err := env.Compile(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			want, _ := f.Matches(msg)
			indexed := rapid.SliceOfDistinct(rapid.SampledFrom([]filter.TermKind{filter.Online, filter.Alerting, filter.Tagged}), rapid.ID).Draw(t, "indexed")
			plan := f.Plan(indexed...)
			for name, view := range map[string]filter.View{"twin": tw, "look": &peek} {
				got, err := plan.Holds(&filter.Question{View: view, Facts: facts, Whole: func() *twin.Twin { return tw }})
				got = got && hasTerms(tw, plan.Terms())
				if err != nil || got != want {
					t.Fatalf("%s: the plan says %v, %v of the %s; the filter %v of\n%v", text, got, err, name, want, msg)
				}
			}
			if want {
				matched++
			}
			if plan.Exact() {
				exact++
			}
		}
	})
	if matched < 30 || exact < 30 {
		t.Errorf("%d matched, %d were exact: that compares little", matched, exact)
	}
}

// hasTerms is what an index would say.
func hasTerms(t *twin.Twin, terms []filter.Term) bool {
	for _, term := range terms {
		switch term.Kind {
		case filter.Online:
			if t.Online() != term.Want {
				return false
			}
		case filter.Alerting:
			if (len(t.OpenAlerts()) > 0) != term.Want {
				return false
			}
		case filter.Tagged:
			if value, ok := filter.Message(t, filter.Facts{}).GetTags()[term.Key]; !ok || value != term.Value {
				return false
			}
		}
	}
	return true
}

// TestPlanTakesApart: what an index answers is not asked of the twin, and what is a comparison needs no
// more than a view.
func TestPlanTakesApart(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	tw := exampleOf(t, 82)
	for _, tc := range []struct {
		filter string
		terms  []filter.Term
		exact  bool
		whole  bool // the twin as a whole is needed
	}{
		{``, nil, true, false},
		{`online`, []filter.Term{{Kind: filter.Online, Want: true}}, true, false},
		{`!online && size(open_alerts) > 0`, []filter.Term{{Kind: filter.Online}, {Kind: filter.Alerting, Want: true}}, true, false},
		{
			`online && metrics["temperature"].value > 80 && tags["site"] == "brno"`,
			[]filter.Term{{Kind: filter.Online, Want: true}, {Kind: filter.Tagged, Key: "site", Value: "brno", Want: true}},
			false, false,
		},
		{`online || version > 3`, nil, false, false},
		{`online && has(metrics.temperature)`, []filter.Term{{Kind: filter.Online, Want: true}}, false, true},
		{`tags.site == "a" || tags.site == "b" || has(tags.line)`, nil, false, false},
	} {
		f, err := env.Compile(tc.filter)
		if err != nil {
			t.Fatal(err)
		}
		plan := f.Plan(filter.Online, filter.Alerting, filter.Tagged)
		if diff := cmp.Diff(tc.terms, plan.Terms()); diff != "" || plan.Exact() != tc.exact {
			t.Errorf("%s: exact %v, want %v, terms (-want +got)\n%s", tc.filter, plan.Exact(), tc.exact, diff)
		}
		whole := false
		if _, err := plan.Holds(&filter.Question{View: tw, Whole: func() *twin.Twin { whole = true; return tw }}); err != nil || whole != tc.whole {
			t.Errorf("%s: %v, whole twin %v, want %v", tc.filter, err, whole, tc.whole)
		}
	}
}

func TestPlanWithoutTheTwin(t *testing.T) {
	f, err := mustEnv(t, &doppelv1.Twin{}).Compile(`has(metrics.temperature)`)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := f.Plan().Holds(&filter.Question{View: exampleOf(t, 1), Whole: func() *twin.Twin { return nil }}); ok || err != nil {
		t.Errorf("a twin that cannot be had passes: %v, %v", ok, err)
	}
}

func BenchmarkPlan(b *testing.B) {
	tw := exampleOf(b, 82)
	encoded := tw.Encode(nil)
	for i, text := range []string{
		`online && metrics["temperature"].value > 80`,
		`online && metrics["temperature"].value > 80 && metrics.temperature.z < 3`,
	} {
		f, err := mustEnv(b, &doppelv1.Twin{}).Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		plan := f.Plan()
		b.Run(fmt.Sprintf("encoded/%d", i), func(b *testing.B) {
			var peek twin.Peek
			var whole twin.Twin
			q := filter.Question{View: &peek, Whole: func() *twin.Twin {
				if err := whole.Decode("pump-1", encoded, nil); err != nil {
					return nil
				}
				return &whole
			}}
			b.ReportAllocs()
			for b.Loop() {
				if !peek.Look("pump-1", encoded, nil) {
					b.Fatal("not read")
				}
				if _, err := plan.Holds(&q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
