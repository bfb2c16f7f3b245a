package filter_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func mustEnv(t testing.TB, msg proto.Message) *filter.Env {
	t.Helper()
	env, err := filter.NewEnv(msg)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// exampleTwin is a twin whose temperature is n.
func exampleTwin(id string, n int) *doppelv1.Twin {
	created := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	return &doppelv1.Twin{
		Id: id, Version: uint64(n), Boot: 2, Seq: uint64(n), Online: n%2 == 0,
		LastSeen:   timestamppb.New(created.Add(time.Duration(n) * time.Second)),
		CreateTime: timestamppb.New(created),
		Tags:       map[string]string{"site": "brno", "line": strconv.Itoa(n % 3)},
		Metrics: map[string]*doppelv1.Metric{
			"temperature": {Value: float64(n), Mean: 20, Stddev: 2, Count: 64, Z: new(1.5)},
			"vibration":   {Value: 0.25},
		},
		Reported: &structpb.Struct{Fields: map[string]*structpb.Value{
			"firmware": structpb.NewStringValue("1.2.3"),
			"radio": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
				"rssi": structpb.NewNumberValue(-70), "channel": structpb.NewNumberValue(11),
			}}),
		}},
		Counters: &doppelv1.Counters{Applied: uint64(n), Gaps: 1},
	}
}

func TestFilterOnTwins(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	tw := exampleTwin("pump-1", 82)
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
		f, err := env.Compile(tc.filter)
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
		got, err := f.Matches(tw)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %v, %v; want %v", tc.filter, got, err, tc.want)
		}
	}
}

func TestFilterOnAnAbsentTimeIsNoMatch(t *testing.T) {
	f, err := mustEnv(t, &doppelv1.Twin{}).Compile(`last_seen < timestamp("2030-01-01T00:00:00Z")`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Matches(&doppelv1.Twin{Id: "a"}); got || err != nil {
		t.Errorf("got %v, %v; want no match", got, err)
	}
}

func TestFilterOnAlerts(t *testing.T) {
	env := mustEnv(t, &doppelv1.Alert{})
	a := &doppelv1.Alert{Device: "pump-1", State: doppelv1.AlertState_FIRING, Severity: doppelv1.Severity_CRITICAL, Score: 7, BaselineCount: 64}
	for text, want := range map[string]bool{
		`state == "FIRING" && device.startsWith("pump-")`: true,
		`state == "RESOLVED"`:                             false,
		`severity == "CRITICAL"`:                          true,
		`severity in ["WARNING", "CRITICAL"]`:             true,
		`score >= 7 && baseline_count == 64`:              true,
		`baselineCount > 64`:                              false,
	} {
		f, err := env.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Matches(a); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestWrongFiltersNameTheirPlace(t *testing.T) {
	env := mustEnv(t, &doppelv1.Twin{})
	for text, want := range map[string]string{
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
		_, err := env.Compile(text)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		var bad *filter.Error
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, want) {
			t.Errorf("%.40s: got %v, want %q", text, err, want)
		}
	}
}

func TestFilterIsLimitedInCost(t *testing.T) {
	f, err := mustEnv(t, &doppelv1.Twin{}).Compile(
		`[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > version - 1000))))`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Matches(exampleTwin("a", 1)); !errors.Is(err, filter.ErrCost) {
		t.Errorf("got %v, want %v", err, filter.ErrCost)
	}
}

// No filter, however odd, may panic.
func FuzzFilter(f *testing.F) {
	env := mustEnv(f, &doppelv1.Twin{})
	for _, s := range []string{`online`, `metrics["t"].value > 1`, `tags.site == "x"`, `size(id) / 0 == 1`, `reported.a.b[0] == null`} {
		f.Add(s)
	}
	tw := exampleTwin("a", 1)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := env.Compile(s)
		if err != nil {
			return
		}
		if _, err := c.Matches(tw); err != nil && !errors.Is(err, filter.ErrCost) {
			t.Errorf("%s: %v", s, err)
		}
	})
}
