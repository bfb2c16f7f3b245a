package lowwater

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair are the two ends of a connection over loopback.
func pair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if there, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if here, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}

// A reader that waits is left in peace while the mark is up, and has what came once it is down.
func TestMark(t *testing.T) {
	if !supported {
		t.Log("no marks on this system: the connection wakes as ever")
		return
	}
	here, there := pair(t)
	m := Of(here)
	m.Raise()
	got := make(chan error, 1)
	go func() {
		_, err := here.Read(make([]byte, 8))
		got <- err
	}()
	time.Sleep(50 * time.Millisecond) // it waits
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		t.Fatalf("woken below the mark: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	m.Lower()
	if err := <-got; err != nil {
		t.Fatal(err)
	}

	m.Raise()
	go func() {
		_, err := here.Read(make([]byte, 8))
		got <- err
	}()
	time.Sleep(50 * time.Millisecond)
	_ = there.Close()
	select {
	case err := <-got:
		if !errors.Is(err, io.EOF) {
			t.Fatalf("got %v, want the end of the connection", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the end of the connection does not wake")
	}
}

// Connections without a mark are read as ever.
func TestNoMark(t *testing.T) {
	here, _ := net.Pipe()
	for name, c := range map[string]net.Conn{"pipe": here, "TLS over a pipe": tls.Client(here, &tls.Config{MinVersion: tls.VersionTLS13})} {
		m := Of(c)
		if m != nil {
			t.Errorf("%s: has a mark", name)
		}
		m.Raise()
		m.Lower()
	}
	tcp, _ := pair(t)
	if m := Of(tls.Client(tcp, &tls.Config{MinVersion: tls.VersionTLS13})); supported && m == nil {
		t.Error("TLS over TCP has no mark")
	}
}
