package fault

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patch is a network of two nodes, which are shells, to be disturbed.
type patch struct {
	wiring

	// say makes a node send a line to the tester, and gives what arrives there within a while.
	say func(t *testing.T, from Subject, line string, within time.Duration) string
}

// namespaced is such a network in namespaces; false: this machine has none.
func namespaced(t *testing.T) (*patch, bool) {
	t.Helper()
	ns, err := newNamespaces(t.Context(), t.TempDir(), Members(), 1)
	if err != nil {
		t.Logf("only proxies here: %v", err)
		return nil, false
	}
	t.Cleanup(ns.close)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", netip.AddrPortFrom(ns.addresses[Kafka], 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &patch{wiring: ns, say: func(t *testing.T, from Subject, line string, within time.Duration) string {
		t.Helper()
		host, port, _ := net.SplitHostPort(l.Addr().String())
		script := fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; echo %s >&3; cat <&3", host, port, line)
		return exchange(t, l, append(ns.enter(from), "bash", "-c", script), within)
	}}, true
}

// exchange runs a command that connects, and gives the line that it sends and gets back within a while.
func exchange(t *testing.T, l net.Listener, line []string, within time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(within))
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(within))
		buf := make([]byte, 100)
		if n, err := c.Read(buf); err == nil {
			_, _ = c.Write(buf[:n])
		}
	}()
	var out strings.Builder
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = &out, io.Discard
	_ = cmd.Run()
	<-done
	return strings.TrimSpace(out.String())
}

// TestLan: what is cut does not arrive, in the direction that is cut and in no other, and what is slow comes late.
func TestLan(t *testing.T) {
	p, ok := namespaced(t)
	if !ok {
		if os.Geteuid() == 0 {
			t.Error("root has namespaces, so this machine should")
		}
		return
	}
	const short, long = 700 * time.Millisecond, 15 * time.Second
	if got := p.say(t, "node-1", "one", long); got != "one" {
		t.Fatalf("an undisturbed link carries %q, want one", got)
	}
	for _, dir := range [][2]Subject{{"node-1", Kafka}, {Kafka, "node-1"}} {
		p.disturb(dir[0], dir[1], disturbance{loss: 1})
		if got := p.say(t, "node-1", "two", short); got != "" {
			t.Errorf("%s to %s is cut, but %q came back", dir[0], dir[1], got)
		}
		if got := p.say(t, "node-2", "three", long); got != "three" {
			t.Errorf("%s to %s is cut: another node's link carries %q", dir[0], dir[1], got)
		}
		p.disturb(dir[0], dir[1], disturbance{})
		if got := p.say(t, "node-1", "four", long); got != "four" {
			t.Errorf("a healed link carries %q, want four", got)
		}
	}
	p.disturb(Kafka, "node-1", disturbance{delay: 300 * time.Millisecond})
	start := time.Now()
	if got := p.say(t, "node-1", "five", long); got != "five" || time.Since(start) < 600*time.Millisecond {
		t.Errorf("a slow link carries %q in %v: want five in two slow answers", got, time.Since(start))
	}
	p.disturb(Kafka, "node-1", disturbance{loss: 0.5})
	for i := range 5 {
		if want := fmt.Sprint("lossy-", i); p.say(t, "node-1", want, 4*long) != want {
			t.Errorf("a lossy link does not carry %q in the end", want)
		}
	}
}

// TestNamespacesVanish: nothing is left of a network that was closed, or whose guard was left alone with it.
func TestNamespacesVanish(t *testing.T) {
	if _, ok := namespaced(t); !ok {
		return
	}
	there := func(name string) bool { _, err := os.Stat("/run/netns/" + name); return err == nil }
	ns, err := newNamespaces(t.Context(), t.TempDir(), Members(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if name := ns.names["node-1"]; !there(name) {
		t.Errorf("%s does not exist", name)
	}
	ns.close()
	for _, name := range ns.names {
		if there(name) {
			t.Errorf("%s is left", name)
		}
	}
	left, err := newNamespaces(t.Context(), t.TempDir(), Members(), 1)
	if err != nil {
		t.Fatal(err)
	}
	g, err := startGuard(left.dir)
	if err != nil {
		t.Fatal(err)
	}
	g.close()
	for _, name := range left.names {
		if there(name) {
			t.Errorf("the guard leaves %s", name)
		}
	}
	left.close()
}
