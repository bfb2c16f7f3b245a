package api

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func mustEnv(t testing.TB, msg proto.Message) *filterEnv {
	t.Helper()
	env, err := newFilterEnv(msg)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestFilterOnTwins(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	tw := apitest.Twin("pump-1", 82)
	tw.OpenAlerts = []string{"00000000000000aa"}
	for _, tc := range []struct {
		filter string
		want   bool
	}{
		{``, true},
		{`online && metrics["temperature"].value > 80 && tags["site"] == "brno"`, true},
		{`metrics["temperature"].value > 82.5`, false},
		{`metrics["temperature"].value == 82`, true},
		{`metrics["temperature"].value != 82`, false},
		{`metrics.temperature.value >= 82`, true},
		{`metrics["temperature"].z > 1`, true},
		{`metrics["temperature"].value - metrics["vibration"].value * 2 > 81`, true},
		{`metrics["temperature"].value in [82, 83]`, true},
		{`version == 82`, true},
		{`version + 1 == 83`, true},
		{`seq > 81.5 && boot < 3`, true},
		{`counters.applied == 82 && counters.gaps == 1`, true},
		{`id.startsWith("pump-")`, true},
		{`id == "pump-1" || nonsense`, false}, // not compiled: see below
		{`reported.firmware == "1.2.3"`, true},
		{`reported["radio"]["rssi"] < -60`, true},
		{`reported.radio.channel == 11`, true},
		{`reported.firmware > 5`, false}, // another type: no match
		{`desired.firmware == "1.2.3"`, false},
		{`!(desired.firmware == "1.2.3")`, false}, // a missing key is no match, either way
		{`has(desired.firmware)`, false},
		{`has(reported.firmware)`, true},
		{`metrics["nosuch"].value > 0`, false},
		{`tags["nosuch"] == ""`, false},
		{`"site" in tags`, true},
		{`tags.site == "brno"`, true},
		{`tags.exists(k, k == "line")`, true},
		{`last_seen > timestamp("2026-11-22T10:00:00Z")`, true},
		{`lastSeen > createTime`, true},
		{`create_time < timestamp("2026-11-22T10:00:00Z")`, false},
		{`size(open_alerts) == 1`, true},
		{`openAlerts.size() > 0`, true},
		{`counters.deadLettered == 0 && counters.dead_lettered == 0`, true},
		{`quarantined`, false},
		{`digest == 0`, true},
	} {
		f, err := env.compile(tc.filter)
		if strings.Contains(tc.filter, "nonsense") {
			if err == nil {
				t.Errorf("%s: compiled", tc.filter)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.filter, err)
			continue
		}
		got, err := f.matches(tw)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %v, %v; want %v", tc.filter, got, err, tc.want)
		}
	}
}

func TestFilterOnAnAbsentTimeIsNoMatch(t *testing.T) {
	f, err := mustEnv(t, &doppelv1.Twin{}).compile(`last_seen < timestamp("2030-01-01T00:00:00Z")`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.matches(&doppelv1.Twin{Id: "a"}); got || err != nil {
		t.Errorf("got %v, %v; want no match", got, err)
	}
}

func TestFilterOnAlerts(t *testing.T) {
	env := mustEnv(t, &doppelv1.Alert{})
	a := &doppelv1.Alert{Device: "pump-1", State: doppelv1.AlertState_FIRING, Severity: doppelv1.Severity_CRITICAL, Score: 7, BaselineCount: 64}
	for filter, want := range map[string]bool{
		`state == "FIRING" && device.startsWith("pump-")`: true,
		`state == "RESOLVED"`:                             false,
		`severity == "CRITICAL"`:                          true,
		`severity in ["WARNING", "CRITICAL"]`:             true,
		`score >= 7 && baseline_count == 64`:              true,
		`baselineCount > 64`:                              false,
	} {
		f, err := env.compile(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if got, err := f.matches(a); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", filter, got, err, want)
		}
	}
}

func TestWrongFiltersNameTheirPlace(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	for filter, want := range map[string]string{
		`online &&`:                "1:10:",
		`online && temperatur > 3`: "1:11: undeclared reference to 'temperatur'",
		`metrics["t"].vlaue > 3`:   "1:13: undefined field 'vlaue'",
		`id > 3`:                   "1:4: found no matching overload",
		"online &&\n  nope":        "2:3:",
		`version`:                  "", // dynamic: may turn out to be a bool
		`id`:                       "1:1: gives a string, want a bool",
		"seq" + strings.Repeat("+seq", 400) + " > 0": "1:1: max recursion depth exceeded",
		strings.Repeat("(", 200):                     "1:",
		`id == "` + strings.Repeat("x", 5000) + `"`:  "longer than",
	} {
		_, err := env.compile(filter)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", filter, err)
			}
			continue
		}
		var bad *violation
		if !errors.As(err, &bad) || bad.field != "filter" || !strings.Contains(bad.text, want) {
			t.Errorf("%.40s: got %v, want %q", filter, err, want)
		}
	}
}

func TestFilterIsLimitedInCost(t *testing.T) {
	f, err := mustEnv(t, &doppelv1.Twin{}).compile(
		`[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > version - 1000))))`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.matches(apitest.Twin("a", 1)); !errors.Is(err, errFilterCost) {
		t.Errorf("got %v, want %v", err, errFilterCost)
	}
}

// No filter, however odd, may panic.
func FuzzFilter(f *testing.F) {
	env := mustEnv(f, &doppelv1.Twin{})
	for _, s := range []string{`online`, `metrics["t"].value > 1`, `tags.site == "x"`, `size(id) / 0 == 1`, `reported.a.b[0] == null`} {
		f.Add(s)
	}
	tw := apitest.Twin("a", 1)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := env.compile(s)
		if err != nil {
			return
		}
		if _, err := c.matches(tw); err != nil && !errors.Is(err, errFilterCost) {
			t.Errorf("%s: %v", s, err)
		}
	})
}
