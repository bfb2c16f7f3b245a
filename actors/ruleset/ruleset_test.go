package ruleset

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func full() *doppelv1.Rule {
	return &doppelv1.Rule{
		Id: "hot-pump", Version: 3, Kind: "threshold", Metric: "temperature", Mode: "shadow",
		Match:      &doppelv1.Match{Device: "pump-*", Tags: map[string]string{"site": "brno", "line": "a"}},
		Levels:     map[string]*doppelv1.Level{"warning": {Enter: 80, Exit: 75, Op: ">"}, "critical": {Enter: 90, Exit: 85, Op: ">"}},
		ForSamples: 2, ForDuration: durationpb.New(time.Second), MinDwell: durationpb.New(time.Minute),
		EscalateAfter: durationpb.New(time.Hour), DeescalateAfter: durationpb.New(2 * time.Second), FlapCount: 5, FlapWindow: durationpb.New(10 * time.Minute),
	}
}

// TestRuleAndBack: what people write is what runs, every field of it.
func TestRuleAndBack(t *testing.T) {
	r, err := NewCompiler().Rule(full())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), codec.Rule(&r), protocmp.Transform()); diff != "" {
		t.Errorf("-written +runs\n%s", diff)
	}
	for _, b := range alert.Builtin() {
		if _, err := NewCompiler().Rule(codec.Rule(&b)); err != nil {
			t.Errorf("built-in %s: %v", b.ID, err)
		}
	}
}

// TestEncodeIsOneWay: the same rules are the same bytes, in whatever order they come, and those that are off are not there.
func TestEncodeIsOneWay(t *testing.T) {
	a, b, off := full(), full(), full()
	b.Id, off.Id, off.Mode = "another", "off", "off"
	s := &doppelv1.Silence{Id: "s", Filter: "true", EndTime: timestamppb.New(time.Unix(9, 0))}
	one, err := Encode(&doppelv1.RulesInput{Offset: 7, Rules: []*doppelv1.Rule{a, off, b}, Silences: []*doppelv1.Silence{s}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := Encode(&doppelv1.RulesInput{Offset: 7, Rules: []*doppelv1.Rule{b, a}, Silences: []*doppelv1.Silence{s}})
	if err != nil || string(one) != string(other) {
		t.Errorf("%x and %x, %v", one, other, err)
	}
	c := NewCompiler()
	set := c.Compile(one)
	if set.Offset != 7 || len(set.Skipped) > 0 {
		t.Errorf("set of %d, skipped %v", set.Offset, set.Skipped)
	}
	if c.Compile([]byte(string(other))) != set {
		t.Error("the same bytes gave another set")
	}
}

// TestSkipped: what a build cannot run does not take the rest with it.
func TestSkipped(t *testing.T) {
	odd, broken, good := full(), full(), full()
	odd.Id, odd.Kind = "odd", "from-a-newer-build"
	broken.Id, broken.Kind, broken.Metric, broken.Expression = "broken", "expression", "", "f("
	in := &doppelv1.RulesInput{Offset: 3, Rules: []*doppelv1.Rule{odd, broken, good, good}, Silences: []*doppelv1.Silence{{Id: "s", Filter: "nothing such"}}}
	b, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	set := NewCompiler().Compile(b)
	var text strings.Builder
	for _, err := range set.Skipped {
		text.WriteString(err.Error() + "\n")
	}
	for _, want := range []string{`"odd"`, `"broken"`, "twice", `silence "s"`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("skipped does not name %s:\n%s", want, text.String())
		}
	}
	var fx twin.Effects
	tw := twin.New("pump-1", 1)
	if set.Alerts == nil || len(set.Skipped) != 4 {
		t.Errorf("%d skipped", len(set.Skipped))
	}
	tw.Step(1, &twin.Input{Kind: twin.KindStatus, ReceivedAt: 1, Status: twin.Status{Online: true}}, set.Alerts, &fx)
	if bytes := NewCompiler().Compile([]byte{0xff}); len(bytes.Skipped) == 0 || bytes.Alerts == nil {
		t.Error("bytes that are no rules were taken for some")
	}
}

// TestInvalid: every error names a field and says what to do.
func TestInvalid(t *testing.T) {
	for field, change := range map[string]func(r *doppelv1.Rule){
		"id":                   func(r *doppelv1.Rule) { r.Id = "A" },
		"kind":                 func(r *doppelv1.Rule) { r.Kind = "" },
		"metric":               func(r *doppelv1.Rule) { r.Kind = "offline" },
		"levels":               func(r *doppelv1.Rule) { r.Levels = nil },
		"levels[loud]":         func(r *doppelv1.Rule) { r.Levels["loud"] = &doppelv1.Level{} },
		"levels[warning].exit": func(r *doppelv1.Rule) { r.Levels["warning"].Exit = 85 },
		"levels[critical]":     func(r *doppelv1.Rule) { r.Levels["critical"].Enter, r.Levels["critical"].Exit = 70, 70 },
		"levels[warning].op":   func(r *doppelv1.Rule) { r.Levels["warning"].Op = ">=" },
		"window_samples":       func(r *doppelv1.Rule) { r.WindowSamples = 7 },
		"window":               func(r *doppelv1.Rule) { r.Window = durationpb.New(time.Second) },
		"for_duration":         func(r *doppelv1.Rule) { r.ForDuration = durationpb.New(-time.Second) },
		"min_dwell":            func(r *doppelv1.Rule) { r.MinDwell = &durationpb.Duration{Seconds: 1 << 60} },
		"flap_count":           func(r *doppelv1.Rule) { r.FlapCount = 1e6 },
		"expression":           func(r *doppelv1.Rule) { r.Expression = "true" },
		"mode":                 func(r *doppelv1.Rule) { r.Mode = "on" },
		"match.device":         func(r *doppelv1.Rule) { r.Match.Device = strings.Repeat("x", 300) },
		"match.tags":           func(r *doppelv1.Rule) { r.Match.Tags[""] = "x" },
		"levels[critical].enter": func(r *doppelv1.Rule) {
			r.Kind = "zscore"
			r.Levels = map[string]*doppelv1.Level{"critical": {Enter: -1}}
		},
	} {
		r := full()
		change(r)
		_, err := NewCompiler().Rule(r)
		if bad := (*Invalid)(nil); !errors.As(err, &bad) || bad.Field != field || bad.Text == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestSilence sees the alert as it is published, with the twin's tags.
func TestSilence(t *testing.T) {
	for filter, want := range map[string]bool{
		`device == "pump-1" && severity == "WARNING" && state == "FIRING"`: true,
		`tags["site"] == "brno"`:   true,
		`tags["line"] == "a"`:      false, // there is none
		`rule.startsWith("hot-")`:  true,
		`metric == "pressure"`:     false,
		`value > 80 && score < 80`: true,
	} {
		match, err := NewCompiler().Match(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		got, err := match.Holds(&alert.View{Device: "pump-1", Tags: map[string]string{"site": "brno"}, Alert: &alert.Alert{
			Rule: "hot-pump", Metric: "temperature", Severity: alert.Warning, State: alert.Firing, Value: 90,
		}})
		if err != nil || got != want {
			t.Errorf("%s: %t, %v", filter, got, err)
		}
	}
}

// FuzzRule: whatever a rule says, it is refused with a field or runs, and the same after it was stored.
func FuzzRule(f *testing.F) {
	for _, text := range []string{
		`{"id":"hot","kind":"threshold","metric":"t","levels":{"warning":{"enter":80,"exit":75,"op":">"}}}`,
		`{"id":"z","kind":"zscore","levels":{"warning":{"enter":4,"exit":2}},"forSamples":2,"mode":"shadow"}`,
		`{"id":"e","kind":"expression","expression":"online && metrics[\"t\"].value > 1","levels":{"info":{}},"forDuration":"3s"}`,
		`{"id":"o","kind":"rate","levels":{"critical":{"op":"outside","low":-1,"high":1e308}},"flapCount":3}`,
	} {
		f.Add(text)
	}
	c := NewCompiler()
	f.Fuzz(func(t *testing.T, text string) {
		p := new(doppelv1.Rule)
		if protojson.Unmarshal([]byte(text), p) != nil {
			return
		}
		r, err := c.Rule(p)
		if err != nil {
			if bad := (*Invalid)(nil); !errors.As(err, &bad) || bad.Field == "" || bad.Text == "" {
				t.Fatalf("%s: %v names no field", text, err)
			}
			return
		}
		b, err := Encode(&doppelv1.RulesInput{Offset: 1, Rules: []*doppelv1.Rule{p}})
		if err != nil {
			t.Fatal(err)
		}
		set := c.compile(b)
		if len(set.Skipped) > 0 {
			t.Fatalf("%s: runs, and not when it was stored: %v", text, set.Skipped)
		}
		var fx twin.Effects
		tw := twin.New("pump-1", 1)
		for i := range 4 {
			tw.Step(int64(i+1), &twin.Input{Kind: twin.KindSample, ReceivedAt: int64(i + 1), Sample: twin.Sample{
				Numbered: true, Seq: uint64(i + 1), Readings: []twin.Reading{{Name: "t", Value: float64(i) * 1e300}},
			}}, set.Alerts, &fx)
		}
		_ = r
	})
}
