package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	f, skew, err := parseFaults("dup=0.05,reorder=0.1, drop-conn=0.01,poison=1,skew=2s")
	if diff := cmp.Diff(fleet.Faults{Dup: 0.05, Reorder: 0.1, DropConn: 0.01, Poison: 1}, f); diff != "" || skew != 2*time.Second || err != nil {
		t.Errorf("skew %v, error %v (-want +got):\n%s", skew, err, diff)
	}
	for _, list := range []string{"dup", "dup=x", "dup=1.1", "dup=NaN", "dup=-0.1", "loss=0.1", "skew=1", "skew=-1s", "skew=10m", "dup=0.1,,"} {
		if _, _, err := parseFaults(list); err == nil || !strings.HasPrefix(err.Error(), "faults: ") {
			t.Errorf("%s: error %v", list, err)
		}
	}
}

// execute runs `doppel sim` and gives its exit code.
func execute(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := Sim()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	err := cmd.ExecuteContext(t.Context())
	var exit *ExitError
	switch {
	case err == nil:
		return 0, out.String()
	case errors.As(err, &exit):
		return exit.ExitCode(), out.String()
	default:
		t.Fatalf("%v: error without exit code: %v", args, err)
		return 0, ""
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, args := range [][]string{
		{"--devices", "0"},
		{"--devices", "-1"},
		{"--rate", "-1"},
		{"--rate", "NaN"},
		{"--duration", "0s"},
		{"--metrics", "65"},
		{"--anomalies", "-1"},
		{"--connections", "-2"},
		{"--boot", "9223372036854775808"},
		{"--settle", "0s"},
		{"--prefix", "a b"},
		{"--prefix", strings.Repeat("x", 29)},
		{"--faults", "loss=1"},
		{"--format", "xml"},
		{"--batch", "1001"},
		{"--batch", "64", "--faults", "reorder=0.1"},
		{"--inflight", "65536"},
		{"--broker", "http://127.0.0.1"},
		{"--replay", empty},
		{"--replay", filepath.Join(empty, "none")},
		{"--replay", empty, "--speed", "0"},
		{"--replay", empty, "--rate", "0"},
		{"--tls-ca", filepath.Join(empty, "none")},
	} {
		if code, out := execute(t, args...); code != exitUsage || !strings.Contains(out, "Error: ") {
			t.Errorf("%v: exit code %d\n%s", args, code, out)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	cmd := Sim()
	cmd.SetOut(&bytes.Buffer{})
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceUsage = true
	cmd.SetArgs([]string{"--broker", "mqtt://127.0.0.1:1", "--http", "127.0.0.1:1"})
	err := cmd.ExecuteContext(ctx)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUnreachable || !errors.Is(err, fleet.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s.csv"), []byte("timestamp,value\n2022-03-20 10:00:00,1\n2022-03-20 10:01:00,2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := &Options{Devices: 4, Rate: 2.5, Duration: 4 * time.Second, Metrics: 1, Replay: dir, Speed: 60, Boot: 7, Prefix: "t-", Seed: 1}
	c, err := newCrowd(o, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"t-00001", "t-00002", "t-00003", "t-00004", "t-s"}, c.ids); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	now := time.Now()
	sources, until, err := c.start(now, func(id string) (uint64, uint64) { return uint64(len(id)), 1 })
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sources {
		n := 0
		for s.Due() < until {
			due := s.Due()
			if due < now.UnixNano() {
				t.Errorf("%s due before the start", s.ID())
			}
			sample := s.Take(due)
			if skew := time.Duration(sample.Time - due).Abs(); skew > time.Second || i == 4 && skew != 0 {
				t.Errorf("%s: clock wrong by %v", s.ID(), skew)
			}
			n++
		}
		if want := map[bool]int{true: 4, false: 10}[i == 4]; n != want {
			t.Errorf("%s: %d samples, want %d", s.ID(), n, want)
		}
	}
	devices := c.devices(fleet.Result{Devices: []fleet.DeviceResult{{}, {Unacked: []uint64{3}}, {Swapped: 2}, {}, {}}})
	if len(devices) != 5 || len(devices[1].Unacked) != 1 || devices[2].Swapped != 2 || devices[0].Boot != 7 || devices[0].Sum.Samples != 10 {
		t.Errorf("devices %+v", devices)
	}
}

func TestConclude(t *testing.T) {
	t.Parallel()
	good := oracle.Report{Sent: 10, Acked: 10}
	if err := conclude(&good, []oracle.Device{{ID: "a"}}, "", &bytes.Buffer{}); err != nil {
		t.Errorf("nothing wrong, but %v", err)
	}
	file := filepath.Join(t.TempDir(), "r.json")
	for name, c := range map[string]struct {
		report  oracle.Report
		devices []oracle.Device
	}{
		"difference":     {oracle.Report{Findings: []string{"lost: a"}}, nil},
		"unacknowledged": {oracle.Report{}, []oracle.Device{{ID: "a", Unacked: []uint64{1}}}},
	} {
		var out bytes.Buffer
		err := conclude(&c.report, c.devices, file, &out)
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != exitDifferent || !strings.Contains(out.String(), c.report.Findings[0]) {
			t.Errorf("%s: error %v\n%s", name, err, out.String())
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := fleet.Progress{Sent: 20, Acked: 19, Resent: 3, Behind: int64(2 * time.Second), Refusals: 1, LastRefusal: 0x97}
	f, err := fleet.New(fleet.Config{Broker: "mqtt://x"})
	if err != nil {
		t.Fatal(err)
	}
	p.Latency = f.Progress().Latency
	if err := p.Latency.RecordValue(1500); err != nil {
		t.Fatal(err)
	}
	const want = "   2s  sent 20  acked 19  10/s  puback p50 1.5 p99 1.5 ms  behind schedule by 2s  resent 3  refused 1 times (reason 0x97)"
	if got := line(2*time.Second, &p, 9.6); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
