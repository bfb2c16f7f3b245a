package system_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// TestRestart: twins, digests and open alerts are there again after a kill.
func TestRestart(t *testing.T) {
	p := start(t, "--data-dir", t.TempDir())
	p.simulate("--devices", "50", "--rate", "20", "--duration", "3s", "--faults", "dup=0.1,reorder=0.1")
	id := nodetest.Unique("gone")
	p.pub(id+"/status", `{"online":true,"boot":1,"session":1}`, "-r")
	p.pub(id+"/reported", `{"firmware":"1.2.3"}`)
	p.pub(id+"/status", `{"online":false,"boot":1,"session":1}`, "-r")
	p.await(id, "offline with an alert", func(tw twin) bool { return !tw.Online && len(tw.OpenAlerts) == 1 && tw.Reported != nil })
	twins, alerts := p.list("twin"), p.list("alerts", "--filter", `rule == "builtin.offline"`)
	if len(twins) != 51 || len(alerts) != 1 {
		t.Fatalf("%d twins, %d alerts before the kill, want 51 and 1", len(twins), len(alerts))
	}

	p.signal(syscall.SIGKILL)
	p.exit(10 * time.Second)
	p = p.again()
	if diff := cmp.Diff(twins, p.list("twin")); diff != "" {
		t.Errorf("twins (-before the kill +after):\n%s", diff)
	}
	if diff := cmp.Diff(alerts, p.list("alerts", "--filter", `rule == "builtin.offline"`)); diff != "" {
		t.Errorf("alerts (-before the kill +after):\n%s", diff)
	}
	p.pub(id+"/status", `{"online":true,"boot":1,"session":2}`, "-r")
	p.await(id, "back, its alert resolved", func(tw twin) bool { return tw.Online && len(tw.OpenAlerts) == 0 })
}

// list is everything of a kind, by id, without what a restart may change: the epoch, what time brings
// (silence makes devices stale), and duplicates counted since the last record.
func (p *process) list(kind string, args ...string) map[string]map[string]any {
	p.t.Helper()
	text := ok(p.t, binary, append([]string{kind, "list", "--addr", p.GRPC, "--limit", "0", "-o", "json"}, args...)...)
	var all []map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		p.t.Fatalf("%s list: %v: %s", kind, err, text)
	}
	byID := make(map[string]map[string]any)
	for _, one := range all {
		if kind == "twin" {
			for _, key := range []string{"epoch", "online", "openAlerts", "version"} {
				delete(one, key)
			}
			delete(one["counters"].(map[string]any), "duplicate")
		}
		byID[one["id"].(string)] = one
	}
	return byID
}

// TestInterruptedFleet: a fleet whose node is killed, or stopped, in the middle finds nothing that was
// acknowledged lost, doubled or out of order.
func TestInterruptedFleet(t *testing.T) {
	for name, tt := range map[string]struct {
		signal syscall.Signal
		code   int
	}{"killed": {syscall.SIGKILL, -1}, "stopped": {syscall.SIGTERM, 0}} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, p *process) {
				ended := p.fleet()
				p.signal(tt.signal)
				if code := p.exit(30 * time.Second); code != tt.code {
					t.Errorf("exit code %d, want %d", code, tt.code)
				}
				p.again()
				ended()
			})
		})
	}
}

// fleet starts a fleet and returns while it sends. What it returns waits until the fleet is through, and
// fails the test unless it found everything in order.
func (p *process) fleet() (ended func()) {
	p.t.Helper()
	fleet := exec.CommandContext(p.t.Context(), binary, "sim", "--broker", p.broker, "--grpc", p.GRPC, "--http", p.HTTP, "--kafka", p.kafka,
		"--topic-root", p.root, "--topic-prefix", p.prefix, "--devices", "50", "--rate", "40", "--duration", "6s", "--faults", "dup=0.02,reorder=0.02", "--verify")
	var says lockedText
	fleet.Env, fleet.Stdout, fleet.Stderr = clean(), &says, &says
	if err := fleet.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = fleet.Wait() }()
	p.t.Cleanup(func() { _ = fleet.Process.Kill(); <-done })
	if !nodetest.Poll(func() bool { return strings.Contains(says.String(), "2s  sent") }) {
		p.t.Fatalf("the fleet does not send:\n%s", says.String())
	}
	return func() {
		p.t.Helper()
		select {
		case <-done:
		case <-time.After(90 * time.Second):
			p.t.Fatalf("the fleet does not end:\n%s", says.String())
		}
		if code := fleet.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("sim: exit code %d\n%s", code, says.String())
		}
	}
}

// TestDataDirectoryIsLocked: a second node on the same data is refused by name.
func TestDataDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	start(t, "--data-dir", dir)
	second := launch(t, "--data-dir", dir)
	if code := second.exit(nodetest.Patience); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if want := fmt.Sprintf("data-dir: %s is in use by another node", dir); !strings.Contains(second.log(), want) {
		t.Errorf("it says %q, want %q", second.log(), want)
	}
}

// TestSecondSignal: who does not want to wait for a node that drains signals again.
func TestSecondSignal(t *testing.T) {
	p := start(t, "--data-dir", t.TempDir())
	// Half a request keeps the HTTP door from closing for some seconds.
	conn, err := net.Dial("tcp", p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /livez HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if !nodetest.Poll(func() bool { return strings.Contains(p.log(), "stopping") }) {
		t.Fatal("the first signal does not stop the node")
	}
	if p.ended() {
		t.Fatal("the node did not wait for the request: this test shows nothing")
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(time.Second); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

// TestAddressesFile: the file has every address, and never those of an earlier run.
func TestAddressesFile(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "--data-dir", dir)
	var keys map[string]string
	b, err := os.ReadFile(p.addressesFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	want := map[string]string{"grpc": p.GRPC, "http": p.HTTP, "mqtt": p.MQTT, "kafka": p.Kafka, "node": p.Node}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	for _, key := range []string{"grpc", "http", "mqtt", "kafka"} {
		if _, port, err := net.SplitHostPort(keys[key]); err != nil || port == "0" {
			t.Errorf("%s: %q is not an address that is bound", key, keys[key])
		}
	}
	p.signal(syscall.SIGTERM)
	p.exit(30 * time.Second)
	late := launch(t, "--data-dir", dir, "--addresses-file", p.addressesFile(), "--kafka", "127.0.0.1:1") // it will not be ready
	if !nodetest.Poll(func() bool { _, err := os.Stat(p.addressesFile()); return os.IsNotExist(err) }) {
		t.Errorf("the file still names addresses that nobody listens on\n%s", late.log())
	}
}
