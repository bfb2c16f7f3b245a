package mqtt

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// mosquitto is a real broker in a process of its own.
type mosquitto struct {
	addr string
	dir  string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// recommended is what the documentation asks for.
const recommended = `
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
persistence true
set_tcp_nodelay true
`

func findMosquitto(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed, and these tests need the real thing: apt-get install mosquitto mosquitto-clients", name)
	return ""
}

func startMosquitto(t testing.TB, config string) *mosquitto {
	t.Helper()
	m := &mosquitto{dir: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	logged := "all"
	if _, ok := t.(*testing.B); ok {
		logged = "error"
	}
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser root\npersistence_location %s/\nlog_type %s\n%s",
		port, m.dir, logged, config)
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.run(t)
	t.Cleanup(func() { m.end(t, syscall.SIGTERM) })
	return m
}

func (m *mosquitto) run(t testing.TB) {
	t.Helper()
	m.out.Reset()
	m.cmd = exec.Command(findMosquitto(t, "mosquitto"), "-c", filepath.Join(m.dir, "mosquitto.conf"))
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		t.Fatalf("start mosquitto: %v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			m.end(t, syscall.SIGKILL)
			t.Fatalf("mosquitto does not answer: %v\n%s", err, m.out.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *mosquitto) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if m.cmd == nil {
		return
	}
	if err := m.cmd.Process.Signal(sig); err != nil {
		t.Errorf("end mosquitto: %v", err)
	}
	_ = m.cmd.Wait()
	m.cmd = nil
	if t.Failed() {
		t.Logf("mosquitto:\n%s", tail(m.out.Bytes(), 4000))
	}
}

// restart as after SIGTERM: it keeps sessions, but not shared subscriptions.
func (m *mosquitto) restart(t testing.TB) {
	t.Helper()
	m.end(t, syscall.SIGTERM)
	m.run(t)
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}
