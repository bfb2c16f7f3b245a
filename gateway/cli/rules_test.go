package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// contractRules is the example of the contract, with more of everything.
const contractRules = `
rules:
- {id: hot-pump, kind: zscore, metric: temperature, match: {device: "pump-*", tags: {site: brno}}, levels: {warning: {enter: 4, exit: 2}, critical: {enter: 6, exit: 3}}, for_samples: 2, window_samples: 512, min_samples: 30, mode: live}
- id: silent
  kind: stale
  forDuration: 1h30m
  min_dwell: 250ms
  levels: {warning: {}}
  mode: off
`

func TestParseRules(t *testing.T) {
	got, err := parseRules([]byte(contractRules))
	if err != nil {
		t.Fatal(err)
	}
	want := []*doppelv1.Rule{
		{
			Id: "hot-pump", Kind: "zscore", Metric: "temperature", Match: &doppelv1.Match{Device: "pump-*", Tags: map[string]string{"site": "brno"}},
			Levels:     map[string]*doppelv1.Level{"warning": {Enter: 4, Exit: 2}, "critical": {Enter: 6, Exit: 3}},
			ForSamples: 2, WindowSamples: 512, MinSamples: 30, Mode: "live",
		},
		{
			Id: "silent", Kind: "stale", ForDuration: durationpb.New(90 * time.Minute), MinDwell: durationpb.New(250 * time.Millisecond),
			Levels: map[string]*doppelv1.Level{"warning": {}}, Mode: "off",
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParseRulesRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"- {id: a, kind: offline}":               `under "rules:", not a list alone`,
		``:                                       "there is none",
		`rules: []`:                              "there is none",
		`- {id: a}`:                              "rules:",
		`rule: [{id: a}]`:                        `"rule"`,
		"rules:\n- {id: a":                       "yaml",
		`rules: [{id: a, for_duration: soon}]`:   "rules[0] a: for_duration",
		`rules: [{id: a, treshold: 3}]`:          `"treshold"`,
		`rules: [{id: a}, {id: a}]`:              "rules[1] a: rules[0]",
		`rules: [{id: a, levels: {warning: 4}}]`: "rules[0] a",
		"rules:\n- {id: a}\n- {id: b, id: c}":    "already",
		`rules: [{id: a, for_duration: 300}]`:    "rules[0] a",
	} {
		if _, err := parseRules([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

// FuzzParseRules: no file of rules does worse than to be refused.
func FuzzParseRules(f *testing.F) {
	f.Add(contractRules)
	f.Add(`{"rules":[{"id":"a","forDuration":"3.5s","levels":{"info":{"enter":"NaN"}}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := parseRules([]byte(text))
		if err == nil && len(rules) == 0 {
			t.Fatal("a file without rules was taken")
		}
	})
}

func TestRulesCommands(t *testing.T) {
	_, addr := serve(t)
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(contractRules), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(wantCode int, want string, args ...string) {
		t.Helper()
		o := doppel(t.Context(), nil, append(args, "--addr", addr)...)
		said := o.stdout
		if o.err != nil {
			said += message(o.err)
		}
		if o.code != wantCode || !strings.Contains(said, want) {
			t.Errorf("%v: exit %d, %q; want %d, %q", args, o.code, said, wantCode, want)
		}
	}
	run(0, "hot-pump would be created (version 1)", "rules", "apply", file, "--dry-run")
	run(0, "builtin.zscore", "rules", "list")
	run(0, "silent created (version 1)", "rules", "apply", file)
	run(0, "zscore  live  temperature  pump-*,site=brno", "rules", "list")
	run(0, `"id": "hot-pump"`, "rules", "list", "-o", "json")
	run(0, "hot-pump would have fired 0 times in 0 samples", "rules", "test", file, "--since", "1h", "--device", "pump-1")
	run(3, "", "rules", "delete", "nobody")
	run(2, "want [FILE]", "rules", "apply")
	run(2, "no such file", "rules", "apply", file+".not")
	run(2, "--since", "rules", "test", file, "--since", "-1h")
	if err := os.WriteFile(file, []byte("rules: [{id: good, kind: stale, levels: {warning: {}}}, {id: bad, kind: stale, metric: t, levels: {warning: {}}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(2, `rules[1] "bad": rule.metric`, "rules", "apply", file)
	if o := doppel(t.Context(), nil, "rules", "list", "--addr", addr); strings.Contains(o.stdout, "good") {
		t.Errorf("a rule was applied of a file that has a wrong one:\n%s", o.stdout)
	}
	run(0, "maintenance", "alerts", "silence", `device == "pump-1"`, "--for", "2h", "-m", "maintenance")
	run(0, `device == "pump-1"`, "alerts", "silences")
	run(2, "--for", "alerts", "silence", "true")
	run(2, "filter", "alerts", "silence", "severty", "--for", "1m")
	run(3, "", "alerts", "unsilence", "0123456789abcdef")
	run(2, "id", "alerts", "unsilence", "x")
}
