package system_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// envOverload says for how long a node is overloaded; the default only shows the shape.
const envOverload = "DOPPEL_TEST_OVERLOAD"

// Connections of the fleet and what each may have unacknowledged: the embedded broker's own limit.
const (
	floodConnections = 16
	floodWindow      = 256
)

// TestOverload: devices that send as fast as they can are slowed down. The node's memory is flat, an
// acknowledgement takes no longer than what is in front of it, and nothing is lost.
func TestOverload(t *testing.T) {
	span := 9 * time.Second
	if s := os.Getenv(envOverload); s != "" {
		var err error
		if span, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", envOverload, err)
		}
	}
	for _, tt := range []struct {
		name  string
		args  []string
		start func(t *testing.T) *process
	}{
		{"flooded", nil, func(t *testing.T) *process { return start(t, "--data-dir", t.TempDir()) }},
		{"large messages", []string{"--batch", "200", "--devices", "64"}, func(t *testing.T) *process { return start(t, "--data-dir", t.TempDir()) }},
		{"slow log", nil, startOnSlowLog},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.start(t)
			watch := p.watchMemory()
			rep := p.flood(span, tt.args...)
			watch.flat(t)
			if rep.Lost+rep.Duplicated+rep.Reordered+rep.DigestMismatches != 0 || rep.Acked != rep.Sent || !rep.Verified {
				t.Errorf("report %+v, want all of it acknowledged and nothing wrong", rep)
			}
			// What stands in front of an acknowledgement is at most the windows of all connections (Little's
			// law). With large messages they come to stand in front of the partition that most devices belong
			// to: one of eight, and with less than an eighth of the machine where others keep it busy. Twice
			// that, and two seconds for the machine, is bounded and not exact.
			bound := 2000 + 16*1000*float64(floodConnections*floodWindow)/(rep.Rate/rep.perMessage())
			if got := rep.Latency.Puback.Max; got == nil || *got > bound {
				t.Errorf("PUBACK took at most %v ms at %.0f samples/s, want at most %.0f ms", deref(got), rep.Rate, bound)
			}
			if m := p.scrape(); m[`doppel_slow_path_total{reason="saturated"}`] != 0 && tt.name == "flooded" {
				t.Errorf("%v messages went round an owner that gets on", m[`doppel_slow_path_total{reason="saturated"}`])
			}
			t.Logf("%.0f samples/s, PUBACK p50 %.0f ms, p99 %.0f ms, max %.0f ms, memory MiB %v", rep.Rate, deref(rep.Latency.Puback.P50),
				deref(rep.Latency.Puback.P99), deref(rep.Latency.Puback.Max), watch.thirds())
		})
	}
}

// startOnSlowLog runs a node whose log is that of another, which is halted nine tenths of the time.
func startOnSlowLog(t *testing.T) *process {
	t.Helper()
	log := start(t, "--data-dir", t.TempDir())
	p := start(t, "--data-dir", t.TempDir(), "--kafka", log.Kafka, "--topic-prefix", "other.")
	p.broker, p.kafka, p.prefix = "mqtt://"+p.MQTT, log.Kafka, "other."
	const run, halt = 10 * time.Millisecond, 90 * time.Millisecond
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer func() { _ = log.cmd.Process.Signal(syscall.SIGCONT) }()
		for {
			for _, s := range []struct {
				signal syscall.Signal
				last   time.Duration
			}{{syscall.SIGSTOP, halt}, {syscall.SIGCONT, run}} {
				if log.cmd.Process.Signal(s.signal) != nil {
					return
				}
				select {
				case <-time.After(s.last):
				case <-stop:
					return
				}
			}
		}
	}()
	var once sync.Once
	p.calm = func() { once.Do(func() { close(stop); <-stopped }) }
	t.Cleanup(p.calm)
	return p
}

// floodReport is what a simulator says of a flood.
type floodReport struct {
	report

	Rate     float64 `json:"rate"`
	Messages uint64  `json:"messages"`
	Latency  struct {
		Puback struct{ P50, P99, Max *float64 } `json:"puback"`
	} `json:"latency_ms"`
}

// perMessage is the number of samples in a message.
func (r *floodReport) perMessage() float64 {
	return float64(r.Sent) / float64(max(1, r.Messages))
}

// flood sends as fast as is acknowledged.
func (p *process) flood(span time.Duration, args ...string) *floodReport {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "report.json")
	cmd := exec.CommandContext(p.t.Context(), binary, append([]string{
		"sim", "--broker", p.broker, "--grpc", p.GRPC, "--http", p.HTTP, "--rate", "0", "--devices", "256",
		"--connections", strconv.Itoa(floodConnections), "--inflight", strconv.Itoa(floodWindow),
		"--duration", span.String(), "--topic-root", p.root, "--topic-prefix", p.prefix, "--verify", "--quiet", "--report", file,
	}, args...)...)
	var says lockedText
	cmd.Env, cmd.Stdout, cmd.Stderr = clean(), &says, &says
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	if p.calm != nil { // what is checked afterwards needs the log at its full speed
		defer time.AfterFunc(span+time.Second, p.calm).Stop()
	}
	if err := cmd.Wait(); err != nil {
		p.t.Errorf("sim: %v\n%s", err, says.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	rep := &floodReport{}
	if err := json.Unmarshal(b, rep); err != nil {
		p.t.Fatalf("report: %v: %s", err, b)
	}
	return rep
}

// memoryWatch measures the memory of a process while it is loaded.
type memoryWatch struct {
	mu      sync.Mutex
	samples []uint64 // bytes
	stop    chan struct{}
	done    chan struct{}
}

func (p *process) watchMemory() *memoryWatch {
	w := &memoryWatch{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		before := p.cpu()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			// Only what is measured under load counts: a fleet that starts or is being checked is none.
			now := p.cpu()
			if now > before {
				w.mu.Lock()
				w.samples = append(w.samples, p.resident())
				w.mu.Unlock()
			}
			before = now
		}
	}()
	return w
}

// thirds are the largest memory in each third of the time, in MiB.
func (w *memoryWatch) thirds() [3]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var most [3]uint64
	for i, s := range w.samples {
		third := i * 3 / len(w.samples)
		most[third] = max(most[third], s>>20)
	}
	return most
}

// flat fails the test if memory still grows at the end.
func (w *memoryWatch) flat(t *testing.T) {
	t.Helper()
	close(w.stop)
	<-w.done
	const slack = 24 // MiB; the collector's
	if m := w.thirds(); len(w.samples) < 30 || m[2] > m[1]*5/4+slack {
		t.Errorf("memory in thirds of the time: %v MiB in %d samples, want the last within 5/4 of the middle one", m, len(w.samples))
	}
}

// resident is the memory of the process in bytes.
func (p *process) resident() uint64 {
	var kb uint64
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &kb)
		}
	}
	return kb << 10
}

// cpu is the time that the process has used, in ticks of the clock.
func (p *process) cpu() uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[max(0, slices.Index(b, ')')+1):]))
	var user, system uint64
	if len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return user + system
}

func deref(f *float64) float64 {
	if f == nil {
		return -1
	}
	return *f
}

// scrape reads the node's metrics.
func (p *process) scrape() nodetest.Metrics {
	p.t.Helper()
	m, err := nodetest.Scrape(p.HTTP)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}
