package system_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// smallDisk mounts a disk of 64 MiB. In a container that may not mount, /dev/shm usually is one.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		var s syscall.Statfs_t
		if syscall.Statfs("/dev/shm", &s) == nil && int64(s.Blocks)*s.Bsize <= 256<<20 {
			if dir, err = os.MkdirTemp("/dev/shm", "doppel-"); err == nil { //nolint:usetesting // of all places there
				t.Cleanup(func() { _ = os.RemoveAll(dir) })
				return dir
			}
		}
		t.Fatalf("mount a small disk: %v: run this test as root, or in `unshare --user --map-root-user --mount`", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all that is free on the disk of dir, and gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	file := filepath.Join(dir, "filler")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// readiness is what /readyz says.
func (p *process) readiness() (code int, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.HTTP+"/readyz", http.NoBody)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (p *process) awaitReadiness(code int, says string) {
	p.t.Helper()
	var got int
	var body string
	if !nodetest.Poll(func() bool {
		got, body = p.readiness()
		return got == code && strings.Contains(body, says)
	}) {
		p.t.Fatalf("readyz: %d %s, want %d with %q", got, body, code, says)
	}
}

// acknowledged counts the PUBACKs that were written, or rather the writes.
func (p *process) acknowledged() float64 {
	p.t.Helper()
	return p.scrape()[`doppel_stage_seconds_count{stage="puback"}`]
}

// TestFullDisk: a node whose disk is full says so, is not ready and acknowledges nothing; it goes on by
// itself when there is room, or after a kill, and nothing acknowledged is lost.
func TestFullDisk(t *testing.T) {
	for _, name := range []string{"recovers", "killed meanwhile", "started meanwhile"} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t)
			p := start(t, "--data-dir", filepath.Join(dir, "data"))
			ended := p.fleet()
			p.awaitReadiness(http.StatusOK, "")
			free := fill(t, dir)
			p.awaitReadiness(http.StatusServiceUnavailable, "disk is full")
			if !nodetest.Poll(func() bool { return strings.Contains(p.log(), "disk is full") }) {
				t.Error("the log does not say that the disk is full")
			}
			// What was on its way when the disk filled may still be answered; then there is silence.
			before, still := -1.0, 0
			if !pollEvery(500*time.Millisecond, func() bool {
				now := p.acknowledged()
				if still++; now != before {
					still = 0
				}
				before = now
				return still == 3
			}) {
				t.Errorf("a node with a full disk goes on acknowledging: %v writes of PUBACKs", before)
			}
			if received := p.scrape()["doppel_samples_in_flight"]; received == 0 {
				t.Error("nothing waits for the disk: this test shows nothing")
			}
			if code, _ := p.readiness(); code != http.StatusServiceUnavailable {
				t.Errorf("readyz: %d while the disk is full, want 503", code)
			}
			if name != "recovers" {
				p.signal(syscall.SIGKILL)
				p.exit(10 * time.Second)
			}
			if name == "started meanwhile" {
				if refused := p.relaunch(); refused.exit(nodetest.Patience) != 1 || !strings.Contains(refused.log(), "no space left on device") {
					t.Errorf("started without any space it ends with %d: %s", refused.cmd.ProcessState.ExitCode(), refused.log())
				}
				if err := os.Truncate(filepath.Join(dir, "filler"), p.allBut(dir, 1<<20)); err != nil { // not enough for records
					t.Fatal(err)
				}
				p = p.relaunch()
				p.awaitReadiness(http.StatusServiceUnavailable, "disk is full")
			}
			free()
			if name == "killed meanwhile" {
				p = p.again()
			}
			p.awaitReadiness(http.StatusOK, "")
			ended()
			if !nodetest.Poll(func() bool {
				m := p.scrape()
				return m["doppel_samples_in_flight"] == 0 && m["doppel_samples_received_total"] == m.Settled()+m["doppel_samples_held"]
			}) {
				t.Error("accounts do not balance")
			}
		})
	}
}

// allBut is how large the filler must be to leave so many bytes of the disk free.
func (p *process) allBut(dir string, free int64) (bytes int64) {
	p.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		p.t.Fatal(err)
	}
	filler, err := os.Stat(filepath.Join(dir, "filler"))
	if err != nil {
		p.t.Fatal(err)
	}
	return filler.Size() + int64(s.Bfree)*s.Bsize - free
}

// pollEvery is Poll with pauses between its tries.
func pollEvery(pause time.Duration, ok func() bool) bool {
	next := time.Now()
	return nodetest.Poll(func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = time.Now().Add(pause)
		return ok()
	})
}
