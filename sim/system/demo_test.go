package system_test

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo: who starts the demo soon sees twins that move and an alert that fires; who stops and starts
// it again finds them.
func TestDemo(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	p := launchCommand(t, "demo", "--data-dir", dir).ready()
	if page := ok(t, "curl", "-sS", "--fail", "http://"+p.HTTP+"/"); !strings.Contains(page, "<title>") {
		t.Errorf("the page is %.200q", page)
	}
	fired := false
	for deadline := time.Now().Add(100 * time.Second); !fired && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		fired = len(p.list("alerts", "--filter", `rule == "builtin.zscore" && state == "FIRING" && device.startsWith("pump-")`)) > 0
	}
	if !fired {
		t.Error("no alert fires in the first 100 seconds")
	}
	was := p.list("twin")
	if len(was) < 200 {
		t.Errorf("%d twins, want at least 200", len(was))
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	// The node alone, so that nothing comes but what was there.
	for id, now := range start(t, "--data-dir", dir).list("twin") {
		if was[id] == nil || now["boot"] != was[id]["boot"] {
			t.Errorf("twin %s is at boot %v after a restart, was %v", id, now["boot"], was[id])
		}
		delete(was, id)
	}
	if len(was) > 0 {
		t.Errorf("%d twins are gone after a restart", len(was))
	}
}
