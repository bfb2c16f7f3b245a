package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// sleeper is a process of ours that does nothing, and what a shell makes of SIGTERM.
func sleeper(t *testing.T, onTerm string) *process {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: Node, dir: filepath.Join(dir, "sleeper")}
	if err := os.Mkdir(p.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	p.start = func(context.Context) error {
		cmd := exec.Command("sh", "-c", onTerm+"; touch ready; while :; do sleep 0.05; done")
		cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { _ = cmd.Wait() }()
		return os.WriteFile(filepath.Join(p.dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
	}
	t.Cleanup(func() { p.signal(syscall.SIGKILL) })
	if err := p.run(t.Context()); err != nil || p.pid() == 0 {
		t.Fatalf("run: %v", err)
	}
	if !await(t.Context(), patience, func() bool { _, err := os.Stat(filepath.Join(p.dir, "ready")); return err == nil }) {
		t.Fatal("the process does nothing")
	}
	return p
}

// state is the letter of /proc: T for a stopped process.
func (p *process) state(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func TestProcessFaults(t *testing.T) {
	p := sleeper(t, ":")
	rig := &Rig{processes: map[Subject]*process{Kafka: p}}
	first := p.pid()
	inject := func(k Kind) {
		t.Helper()
		if err := rig.Inject(t.Context(), []Fault{{Subject: Kafka, Kind: k, For: 3 * pollEvery}}, io.Discard); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	inject(Pause)
	if s := p.state(t); p.pid() != first || s == "T" {
		t.Errorf("after a pause: process %d in state %s, was %d", p.pid(), s, first)
	}
	inject(Kill)
	second := p.pid()
	if second == 0 || second == first {
		t.Errorf("after a kill: process %d, was %d", second, first)
	}
	inject(Terminate)
	if third := p.pid(); third == 0 || third == second {
		t.Errorf("after SIGTERM: process %d, was %d", third, second)
	}
	if err := rig.Inject(t.Context(), []Fault{{Subject: QuestDB, Kind: Kill}}, io.Discard); err == nil {
		t.Error("a fault of what is not there went well")
	}
}

// TestPauseStops: a paused process really stands still.
func TestPauseStops(t *testing.T) {
	p := sleeper(t, ":")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.pause(ctx, patience) }()
	if !await(t.Context(), patience, func() bool { return p.state(t) == "T" }) {
		t.Errorf("state %s while paused, want T", p.state(t))
	}
	cancel()
	<-done
	if !await(t.Context(), patience, func() bool { return p.state(t) != "T" }) {
		t.Error("it stays paused")
	}
}

// TestStubbornProcess: who does not end on SIGTERM is told on, and ended.
func TestStubbornProcess(t *testing.T) {
	p := sleeper(t, "trap '' TERM")
	p.patience = 10 * pollEvery
	if err := p.terminate(); !errors.Is(err, errStubborn) {
		t.Errorf("error %v, want %v", err, errStubborn)
	}
	if p.pid() != 0 {
		t.Error("it lives on")
	}
}

// TestGuard: what this process leaves behind when it dies is ended, and no stranger.
func TestGuard(t *testing.T) {
	p, stranger := sleeper(t, ":"), sleeper(t, ":")
	g, err := startGuard(filepath.Dir(p.dir))
	if err != nil {
		t.Fatal(err)
	}
	// A number that was recycled: the process is not of this directory.
	other := filepath.Join(filepath.Dir(p.dir), "other")
	if err := os.Mkdir(other, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "pid"), []byte(strconv.Itoa(stranger.pid())), 0o600); err != nil {
		t.Fatal(err)
	}
	g.close()
	if !p.gone() {
		t.Error("the process outlives the guard")
	}
	if stranger.pid() == 0 {
		t.Error("the guard ended a stranger")
	}
}
