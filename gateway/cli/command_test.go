package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var update = flag.Bool("update", false, "write golden files")

func TestMain(m *testing.M) {
	time.Local = time.UTC // tables show local time
	os.Exit(m.Run())
}

// errUsage is what the caller of Execute says is usage.
var errUsage = errors.New("usage")

// follow has a hub follow its log of alerts until the test ends.
func follow(t *testing.T, h *api.Hub) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// serve runs the API over a fleet in memory.
func serve(t *testing.T) (*apitest.Fleet, string) {
	t.Helper()
	fleet, _, addr := serveLetters(t)
	return fleet, addr
}

// serveLetters also gives the dead letters.
func serveLetters(t *testing.T) (*apitest.Fleet, *apitest.Letters, string) {
	t.Helper()
	letters := &apitest.Letters{}
	fleet, addr, _ := serveWith(t, letters)
	return fleet, letters, addr
}

// serveNode also gives what stops it.
func serveNode(t *testing.T) (fleet *apitest.Fleet, addr string, stop func()) {
	t.Helper()
	return serveWith(t, &apitest.Letters{})
}

func serveWith(t *testing.T, letters *apitest.Letters) (fleet *apitest.Fleet, addr string, stop func()) {
	t.Helper()
	alerts := &apitest.AlertLog{}
	hub := api.NewHub(api.HubConfig{Alerts: alerts})
	follow(t, hub)
	fleet = apitest.NewFleet(hub, alerts)
	a, err := api.New(api.Config{Twins: fleet, Past: fleet, History: fleet, Alerts: fleet, Fleet: fleet, Rules: fleet, DeadLetters: letters, Resets: fleet, Commands: fleet, Hub: hub, AlertDesk: fleet, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.SetServing(true)
	s := a.Server(insecure.NewCredentials())
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		hub.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return fleet, l.Addr().String(), stop
}

// outcome is what a command left.
type outcome struct {
	stdout, stderr string
	code           int
	err            error
}

// doppel runs a command in this process.
func doppel(ctx context.Context, stdout io.Writer, args ...string) outcome {
	root := newRoot(func() time.Time { return apitest.Epoch().Add(2 * time.Minute) })
	var out, errs bytes.Buffer
	if stdout == nil {
		stdout = &out
	}
	root.SetOut(stdout)
	root.SetErr(&errs)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	o := outcome{stdout: out.String(), stderr: errs.String(), err: err}
	if err != nil {
		o.code = exitCode(err, errUsage)
	}
	return o
}

// pump is a twin with something in every field that is shown.
func pump() *doppelv1.Twin {
	at := timestamppb.New(apitest.Epoch().Add(1500 * time.Millisecond))
	return &doppelv1.Twin{
		Id: "pump-1", Etag: "e1", Version: 42, Boot: 3, Seq: 118, Digest: 0x0123456789abcdef, SetDigest: 0xfedcba9876543210, Online: true,
		LastSeen: at, CreateTime: timestamppb.New(apitest.Epoch()), Tags: map[string]string{"site": "brno", "line": "a"},
		Reported: &structpb.Struct{Fields: map[string]*structpb.Value{"firmware": structpb.NewStringValue("1.2.3")}},
		Metrics: map[string]*doppelv1.Metric{
			"temperature": {Value: 21.5, Time: at, Count: 512, Mean: 20.25, Stddev: 0.5, Min: 19, Max: 22, Z: new(2.5), Score: new(2.25)},
			"vibration":   {Value: 0.02, Time: at, Count: 3, Mean: 0.02, Stddev: 0.001, Min: 0.01, Max: 0.03},
		},
		OpenAlerts: []string{"00000000000000ff"},
		Counters:   &doppelv1.Counters{Applied: 117, Late: 1, Duplicate: 5, DeadLettered: 2, Held: 3, Gaps: 1, Missing: 4},
		Owner:      "node-1", Epoch: 7,
	}
}

func populate(fleet *apitest.Fleet) {
	fleet.Put(pump())
	fleet.Put(&doppelv1.Twin{Id: "pump-2", Quarantined: true, Counters: &doppelv1.Counters{}})
	fleet.Alarm("pump-1", alert.Alert{
		ID: 0xff, Rule: "builtin.zscore", RuleVersion: 1, Metric: "temperature", Severity: alert.Critical, State: alert.Firing,
		CreateTime: apitest.Epoch().UnixNano(), FireTime: apitest.Epoch().UnixNano(), UpdateTime: apitest.Epoch().UnixNano(),
		Value: 31.5, Score: 6.5, Boot: 3, Seq: 118,
	})
}

// TestOutput: what each command prints in each format, byte for byte.
func TestOutput(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	for name, args := range map[string][]string{
		"twin-get":       {"twin", "get", "pump-1"},
		"twin-list":      {"twin", "list", "--order-by", "id"},
		"twin-count":     {"twin", "count", "--by", "tags.site", "--metric", "temperature,vibration"},
		"twin-all":       {"twin", "count"},
		"alerts-list":    {"alerts", "list"},
		"nothing":        {"twin", "list", "--filter", `id == "nobody"`},
		"alerts-quiet":   {"alerts", "list", "--filter", `device == "nobody"`},
		"alerts-explain": {"alerts", "explain", "00000000000000ff"},
	} {
		for _, format := range []string{"table", "wide", "json", "yaml"} {
			t.Run(name+"."+format, func(t *testing.T) {
				got := doppel(t.Context(), nil, append(args, "--addr", addr, "-o", format)...)
				if got.code != 0 || got.stderr != "" {
					t.Fatalf("exit code %d, stderr %q, %v", got.code, got.stderr, got.err)
				}
				golden(t, name+"."+format, got.stdout)
			})
		}
	}
}

// TestAlertsAck: the alert as it is then, the same again as often as one says so; lists show it.
func TestAlertsAck(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	for _, format := range []string{"table", "json"} {
		got := doppel(t.Context(), nil, "alerts", "ack", "00000000000000ff", "-m", "on my way", "--addr", addr, "-o", format)
		if got.code != 0 || got.stderr != "" {
			t.Fatalf("exit code %d, stderr %q, %v", got.code, got.stderr, got.err)
		}
		golden(t, "alerts-ack."+format, got.stdout)
	}
	list := doppel(t.Context(), nil, "alerts", "list", "--addr", addr)
	if !strings.Contains(list.stdout, "(acknowledged by local)") {
		t.Errorf("the list says\n%s", list.stdout)
	}
	fleet.Differ("anything")
	got := doppel(t.Context(), nil, "alerts", "explain", "00000000000000ff", "--addr", addr)
	if !strings.Contains(got.stdout, "The log gives ANOTHER alert than was recorded.") {
		t.Errorf("of a difference it says\n%s", got.stdout)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with -update, then read it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestLimit: a list that is cut says so, on standard error, and pages behind the scenes.
func TestLimit(t *testing.T) {
	fleet, addr := serve(t)
	for i := range 1203 {
		fleet.Put(&doppelv1.Twin{Id: string(rune('a'+i%26)) + "-" + time.Duration(i).String()})
	}
	for limit, want := range map[string]int{"1": 1, "1100": 1100, "0": 1203, "5000": 1203} {
		got := doppel(t.Context(), nil, "twin", "list", "--addr", addr, "--limit", limit)
		if lines := strings.Count(got.stdout, "\n") - 1; lines != want {
			t.Errorf("--limit %s: %d twins, want %d", limit, lines, want)
		}
		if note := strings.Contains(got.stderr, "of 1203 twins; --limit 0 shows all"); note != (want < 1203) {
			t.Errorf("--limit %s: it says %q", limit, got.stderr)
		}
	}
}

// TestExitCodes: scripts can tell wrong usage, nobody there and nothing found apart.
func TestExitCodes(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	tests := []struct {
		args []string
		code int
		says string
	}{
		{[]string{"twin", "get", "pump-1", "--addr", addr}, 0, ""},
		{[]string{"version"}, 0, ""},
		{[]string{"twin", "get", "nobody", "--addr", addr}, 3, "nobody"},
		{[]string{"twin", "get", "pump-1", "--addr", "127.0.0.1:1"}, 4, "127.0.0.1:1"},
		{[]string{"twin", "list", "--addr", addr, "--filter", "nonsense ="}, 2, "filter"},
		{[]string{"twin", "list", "--addr", addr, "--order-by", "nonsense"}, 2, "nonsense"},
		{[]string{"twin", "count", "--addr", addr, "--by", "nonsense"}, 2, "group_by"},
		{[]string{"twin", "count", "--addr", addr, "--quantile", "2"}, 2, "quantiles"},
		{[]string{"twin", "count", "--limit", "0"}, 2, "--limit: 0: want 1 to 1000"},
		{[]string{"detect", "--data", filepath.Join(t.TempDir(), "absent"), "--out", t.TempDir()}, 1, "absent"},
		{[]string{"detect", "--detector", "guess", "--data", "a", "--out", "b"}, 2, `--detector: unknown detector "guess"`},
		{[]string{"detect"}, 2, "--data and --out: both are needed"},
		{[]string{"nonsense"}, 2, `unknown command "nonsense"`},
		{[]string{"twin"}, 2, "a command is missing"},
		{[]string{"twin", "gte"}, 2, `unknown command "gte"`},
		{[]string{"twin", "get"}, 2, "got 0 arguments, want [ID]"},
		{[]string{"twin", "get", "a", "b"}, 2, "got 2 arguments, want [ID]"},
		{[]string{"twin", "list", "a"}, 2, `"a"`},
		{[]string{"twin", "list", "--limit", "-1"}, 2, "--limit: -1 is negative"},
		{[]string{"alerts", "list", "--limit", "-1"}, 2, "--limit: -1 is negative"},
		{[]string{"alerts", "ack"}, 2, "got 0 arguments, want [ID]"},
		{[]string{"alerts", "ack", "ff", "--addr", addr}, 2, "want 16 hex digits"},
		{[]string{"alerts", "ack", "00000000000000fe", "--addr", addr}, 3, "no such alert"},
		{[]string{"alerts", "explain", "00000000000000fe", "--addr", addr}, 3, "no such alert"},
		{[]string{"alerts", "watch", "--min-severity", "loud"}, 2, `--min-severity: "loud" is not info, warning or critical`},
		{[]string{"twin", "list", "-o", "xml"}, 2, `--output: "xml" is not table, wide, json or yaml`},
		{[]string{"twin", "list", "--fliter", "x"}, 2, "unknown flag: --fliter; did you mean --filter?"},
		{[]string{"twin", "list", "-x"}, 2, "unknown shorthand flag"},
		{[]string{"twin", "list", "--limit", "many"}, 2, `invalid argument "many"`},
	}
	for _, tt := range tests {
		got := doppel(t.Context(), nil, tt.args...)
		says := ""
		if got.err != nil {
			says = message(got.err)
		}
		if got.code != tt.code || !strings.Contains(says, tt.says) {
			t.Errorf("%v: exit code %d, it says %q; want %d, %q", tt.args, got.code, says, tt.code, tt.says)
		}
	}
	fleet.Fail(errors.New("disk on fire"))
	if got := doppel(t.Context(), nil, "twin", "get", "pump-1", "--addr", addr); got.code != 1 {
		t.Errorf("a failing node: exit code %d, want 1: %v", got.code, got.err)
	}
}

// TestExitCode covers errors of those who are added to the root.
func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.New("any"), 1},
		{errors.Join(errUsage, errors.New("misspelt")), 2},
		{codedError{}, 7},
		{usagef("wrong"), 2},
	} {
		if got := exitCode(tt.err, errUsage); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

type codedError struct{}

func (codedError) Error() string { return "own" }
func (codedError) ExitCode() int { return 7 }

// TestWatch: first what is, then every change, one line or object each, until the command is ended.
func TestWatch(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	for _, tt := range []struct {
		args   []string
		change func()
		before string // on a line before the change
		after  string // on one behind it
	}{
		{
			[]string{"twin", "watch", "pump-1"},
			func() { tw := pump(); tw.Seq = 119; fleet.Put(tw) },
			`10:00:01.500  pump-1                   online  seq 118      temperature=21.5 vibration=0.02`,
			`10:00:01.500  pump-1                   online  seq 119      temperature=21.5 vibration=0.02`,
		},
		{[]string{"twin", "watch", "pump-1", "-o", "json"}, func() { tw := pump(); tw.Seq = 120; fleet.Put(tw) }, `"snapshot":{"id":"pump-1",`, `"seq":"120"`},
		{
			[]string{"alerts", "watch"},
			func() { fleet.Transition(0x10, "pump-2", alert.Warning, alert.Firing) },
			`10:00:00.000  FIRING    CRITICAL  pump-1                    builtin.zscore `, `FIRING    WARNING   pump-2 `,
		},
		{
			[]string{"alerts", "watch", "pump-1", "--min-severity", "critical", "-o", "json"},
			func() {
				fleet.Transition(0x11, "pump-2", alert.Critical, alert.Firing)
				fleet.Transition(0x12, "pump-1", alert.Warning, alert.Firing)
				fleet.Transition(0x13, "pump-1", alert.Critical, alert.Firing)
			},
			`"snapshot":{"id":"00000000000000ff"`, `"transition":{"id":"0000000000000013"`,
		},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out lines
			ended := make(chan outcome, 1)
			go func() { ended <- doppel(ctx, &out, append(tt.args, "--addr", addr)...) }()
			out.await(t, tt.before)
			tt.change()
			out.await(t, tt.after)
			cancel()
			if got := <-ended; got.code != 0 {
				t.Errorf("exit code %d when ended, want 0: %v", got.code, got.err)
			}
			if strings.Contains(strings.Join(tt.args, " "), "json") {
				for line := range strings.Lines(out.String()) {
					if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") {
						t.Errorf("not one object a line: %q", line)
					}
				}
			}
		})
	}
}

// lines is output that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what was written so far.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) await(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(l.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in\n%s", want, l.String())
		}
	}
}

// TestNearest: the name that was meant.
func TestNearest(t *testing.T) {
	names := []string{"mqtt-addr", "mqtt", "kafka-addr", "http-addr", "grpc-addr"}
	for word, want := range map[string]string{"mqtt-adr": "mqtt-addr", "mqt": "mqtt", "http_addr": "http-addr", "kafkaaddr": "kafka-addr", "xxxx-addr": "grpc-addr"} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}
