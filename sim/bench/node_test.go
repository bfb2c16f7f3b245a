package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is a `doppel run` in a process of its own.
type node struct {
	b     *testing.B
	cmd   *exec.Cmd
	dir   string
	log   string // file with what it wrote to stderr
	addrs struct{ GRPC, HTTP, MQTT, Kafka string }
	start time.Time
	ready time.Duration // from start
	ended bool
}

// startNode starts a node on free ports and waits until it is ready.
func startNode(b *testing.B, dir string, flags ...string) *node {
	b.Helper()
	n := launchNode(b, dir, flags...)
	n.awaitReady()
	return n
}

// launchNode starts a node on free ports.
func launchNode(b *testing.B, dir string, flags ...string) *node {
	b.Helper()
	return launchNodeWith(b, nil, dir, flags...)
}

// launchNodeWith is launchNode with more in its environment.
func launchNodeWith(b *testing.B, env []string, dir string, flags ...string) *node {
	b.Helper()
	n := &node{b: b, dir: dir, log: filepath.Join(dir, "log")}
	file := n.addressesFile()
	if err := os.RemoveAll(file); err != nil {
		b.Fatal(err)
	}
	log, err := os.OpenFile(n.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"run", "--data-dir", filepath.Join(dir, "data"), "--addresses-file", file, "--pprof",
		"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--mqtt-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0",
	}, flags...)
	n.cmd = exec.CommandContext(b.Context(), binary(b), args...)
	n.cmd.Env, n.cmd.Stderr = append(os.Environ(), env...), log
	n.start = time.Now()
	if err := n.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.kill)
	return n
}

func (n *node) addressesFile() string { return filepath.Join(n.dir, "addresses.json") }

func (n *node) awaitReady() {
	n.b.Helper()
	for deadline := n.start.Add(10 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(n.addressesFile())
		if err == nil && json.Unmarshal(text, &n.addrs) == nil {
			break
		}
		if time.Now().After(deadline) || !n.alive() {
			n.b.Fatalf("node is not ready:\n%s", n.logTail())
		}
	}
	n.ready = time.Since(n.start)
}

func (n *node) alive() bool {
	state, err := os.ReadFile(n.proc("stat"))
	return err == nil && !strings.Contains(string(state), ") Z ")
}

// stop ends the node as an operator would; its session stays with the broker.
func (n *node) stop() {
	n.b.Helper()
	n.ended = true
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.b.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.b.Fatalf("node ended: %v\n%s", err, n.logTail())
	}
}

func (n *node) kill() {
	if !n.ended {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
	}
}

func (n *node) logTail() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

func (n *node) proc(file string) string { return fmt.Sprintf("/proc/%d/%s", n.cmd.Process.Pid, file) }

// ticks a second, of CPU times in /proc on every Linux.
const ticks = 100

// cpu is what the process has used so far, in user and system mode.
func (n *node) cpu() time.Duration {
	n.b.Helper()
	text, err := os.ReadFile(n.proc("stat"))
	if err != nil {
		n.b.Fatal(err)
	}
	// Fields 14 and 15; the second is the command in parentheses.
	_, rest, _ := strings.Cut(string(text), ") ")
	var used int64
	for _, f := range strings.Fields(rest)[11:13] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			n.b.Fatal(err)
		}
		used += v
	}
	return time.Duration(used * int64(time.Second) / ticks)
}

// memory is the resident memory of the process in bytes, now and at most so far.
func (n *node) memory() (now, peak float64) {
	n.b.Helper()
	f, err := os.Open(n.proc("status"))
	if err != nil {
		n.b.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch name {
		case "VmRSS":
			now = kb * 1024
		case "VmHWM":
			peak = kb * 1024
		}
	}
	return now, peak
}

// get asks the node's HTTP door.
func (n *node) get(path string) io.ReadCloser {
	n.b.Helper()
	resp, err := http.Get("http://" + n.addrs.HTTP + path)
	if err != nil {
		n.b.Fatalf("get %s: %v\n%s", path, err, n.logTail())
	}
	if resp.StatusCode != http.StatusOK {
		n.b.Fatalf("get %s: %s", path, resp.Status)
	}
	return resp.Body
}

// metrics are the samples of /metrics by what stands before the value, labels included.
func (n *node) metrics() map[string]float64 {
	n.b.Helper()
	body := n.get("/metrics")
	defer body.Close()
	m := make(map[string]float64)
	for s := bufio.NewScanner(body); s.Scan(); {
		if i := strings.LastIndexByte(s.Text(), ' '); i > 0 && s.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(s.Text()[i+1:], 64); err == nil {
				m[s.Text()[:i]] = v
			}
		}
	}
	return m
}

const (
	applied     = `doppel_samples_total{result="applied"}`
	duplicates  = `doppel_samples_total{result="duplicate"}`
	received    = "doppel_samples_received_total"
	checkpoints = "doppel_checkpoints_total"
	floors      = "doppel_floors_total"
	lag         = "doppel_questdb_lag_records"
	mallocs     = "go_memstats_mallocs_total"
	allocated   = "go_memstats_alloc_bytes_total"
	microsecond = 1e-3 // of nanoseconds
)

// profile keeps profiles of the node as DIR/name.*, from now on until the returned function is called.
func (n *node) profile(name string, length time.Duration) (wait func()) {
	dir := os.Getenv("DOPPEL_TEST_PROFILE")
	if dir == "" {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.save(filepath.Join(dir, name+".cpu"), fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(length.Seconds())))
	}()
	return func() {
		n.save(filepath.Join(dir, name+".allocs"), "/debug/pprof/allocs")
		<-done
	}
}

func (n *node) save(file, path string) {
	resp, err := http.Get("http://" + n.addrs.HTTP + path)
	if err != nil {
		n.b.Log(err)
		return
	}
	defer resp.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		n.b.Log(err)
		return
	}
	defer out.Close()
	if _, err := io.Copy(out, resp.Body); err != nil {
		n.b.Log(err)
	}
}
