package device

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func obedient(change func(*Config)) *Device {
	cfg := Config{ID: "a", Boot: 3, Metrics: 1, Start: 1000e9, Interval: 10e9, Limit: 5}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

func TestDesiredIsReportedOnce(t *testing.T) {
	d := obedient(nil)
	for _, tc := range []struct{ payload, patch string }{
		{`{"version":2,"desired":{"a":1,"b":{"c":[1,2]}},"delta":{}}`, `{"a":1,"b":{"c":[1,2]}}`},
		{`{"version":2,"desired":{"a":1,"b":{"c":[1,2]}}}`, ``}, // once more
		{`{"version":3,"desired":{"b":{"c":[1],"d":true}}}`, `{"b":{"c":[1],"d":true}}`},
		{`{"version":2,"desired":{"a":9}}`, ``}, // of yesterday
		{`{"version":3,`, ``},
		{`null`, ``},
	} {
		r, ok := d.Desired([]byte(tc.payload), 0)
		if ok != (tc.patch != "") || string(r.Patch) != tc.patch {
			t.Errorf("%s: reports %s, want %s", tc.payload, r.Patch, tc.patch)
		}
	}
	r, _ := d.Desired([]byte(`{"version":9,"desired":{"a":2}}`), 0)
	if diff := cmp.Diff(Report{Boot: 3, Seq: 3, Patch: []byte(`{"a":2}`)}, r); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestSampling: the interval is that of desired._sampling from the last sample on, and reported.
func TestSampling(t *testing.T) {
	d := obedient(nil)
	d.Take(0) // due at 1000 s
	r, ok := d.Desired([]byte(`{"version":1,"desired":{"_sampling":{"interval_ms":10000,"current_ms":1000}}}`), 1000.2e9)
	if !ok || string(r.Patch) != `{"_sampling":{"current_ms":1000,"interval_ms":10000}}` {
		t.Errorf("reports %s", r.Patch)
	}
	if got := d.Due(); got != 1001e9 {
		t.Errorf("next sample at %d, want a second after the last", got)
	}
	d.Take(0)
	if got := d.Due(); got != 1002e9 {
		t.Errorf("the one after it at %d", got)
	}
	d.Desired([]byte(`{"version":2,"desired":{"_sampling":{"current_ms":60000}}}`), 1001.5e9)
	if got := d.Due(); got != 1061e9 {
		t.Errorf("next sample at %d, want a minute after the last", got)
	}
	// A long silence is not made up for by a burst.
	d.Desired([]byte(`{"version":3,"desired":{"_sampling":{"current_ms":1000}}}`), 1050e9)
	if got := d.Due(); got != 1050e9 {
		t.Errorf("next sample at %d, want now", got)
	}
	for _, nonsense := range []string{`"1"`, `-5`, `0`, `1e99`, `null`, `{}`} {
		d.Desired([]byte(`{"version":4,"desired":{"_sampling":{"current_ms":`+nonsense+`}}}`), 1050e9)
		if got := d.Due(); got != 1050e9 {
			t.Errorf("%s moved the next sample to %d", nonsense, got)
		}
	}
	unpaced := obedient(func(c *Config) { c.Interval = 0 })
	unpaced.Desired([]byte(`{"version":1,"desired":{"_sampling":{"current_ms":1000}}}`), 0)
	if got := unpaced.Due(); got != Unpaced {
		t.Errorf("an unpaced device is due at %d", got)
	}
}

func TestCommands(t *testing.T) {
	d := obedient(nil)
	for _, tc := range []struct {
		name, body string
		status     int
		answer     string
		report     string
	}{
		{"ping", `{"x":[1.50]}`, 200, `{"pong":{"x":[1.50]}}`, ""},
		{"ping", ``, 200, `{"pong":null}`, ""},
		{"set", `{"speed":3,"old":null}`, 200, `{"set":{"old":null,"speed":3}}`, `{"old":null,"speed":3}`},
		{"set", `7`, 400, `{"error":"want a JSON object"}`, ""},
		{"set", ``, 400, `{"error":"want a JSON object"}`, ""},
		{"dance", ``, 404, `{"error":"no such command"}`, ""},
	} {
		a, r, reports := d.Command(&Command{Name: tc.name, Body: []byte(tc.body)}, 0)
		if a.Status != tc.status || string(a.Body) != tc.answer || reports != (tc.report != "") || string(r.Patch) != tc.report {
			t.Errorf("%s %s: %d %s, reports %q", tc.name, tc.body, a.Status, a.Body, r.Patch)
		}
		if !json.Valid(a.Body) {
			t.Errorf("%s is not JSON", a.Body)
		}
	}
	if _, ok := d.Desired([]byte(`{"version":1,"desired":{"speed":3}}`), 0); ok {
		t.Error("what a command has set is reported again")
	}
}

// TestRepeatedCommand: the same correlation is the same command.
func TestRepeatedCommand(t *testing.T) {
	d := obedient(nil)
	c := &Command{Name: "reboot", Correlation: []byte("k")}
	first, _, _ := d.Command(c, 1000e9)
	again, _, _ := d.Command(c, 1000e9)
	if diff := cmp.Diff(first, again); diff != "" || d.Boot() != 4 {
		t.Errorf("boot %d, want 4 (-first +again)\n%s", d.Boot(), diff)
	}
	for i := range recentCommands {
		d.Command(&Command{Name: "ping", Correlation: []byte{byte(i)}}, 0)
	}
	if d.Command(c, 1000e9); d.Boot() != 5 {
		t.Errorf("boot %d: a command is remembered for ever", d.Boot())
	}
}

func TestReboot(t *testing.T) {
	d := obedient(nil)
	d.Take(0)
	d.Take(0)
	before := d.Expected()
	d.Command(&Command{Name: "reboot"}, 1015e9)
	s := d.Take(0)
	if s.Boot != 4 || s.Seq != 1 || s.Time != 1020e9 {
		t.Errorf("boot %d, seq %d at %d after a reboot", s.Boot, s.Seq, s.Time)
	}
	if after := d.Expected(); after.Samples != before.Samples+1 || after.Digest == before.Digest {
		t.Error("the digest does not run on")
	}
	d.Take(0)
	d.Take(0)
	if got := d.Due(); got != Never {
		t.Errorf("due at %d after all 5 samples", got)
	}
	steady := obedient(func(c *Config) { c.Steady = true })
	if a, _, _ := steady.Command(&Command{Name: "reboot"}, 0); a.Status != StatusConflict || steady.Boot() != 3 {
		t.Errorf("a steady device answers %d, boot %d", a.Status, steady.Boot())
	}
}
