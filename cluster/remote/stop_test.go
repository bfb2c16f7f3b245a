package remote

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestStopFlushes: what was told before Stop arrives, by the time that it is done.
func TestStopFlushes(t *testing.T) {
	for range 3 {
		a, b := startNode(t), startNode(t)
		in := b.inbox()
		a.connected(t, b.Address())
		told := 0
		for range 20_000 {
			if err := a.Tell(b.Address(), "inbox", beat(1)); err == nil {
				told++
			} else if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
		}
		a.Stop().Wait()
		if got := in.len(); got != told {
			t.Fatalf("%d of %d messages arrived", got, told)
		}
		if err := a.Tell(b.Address(), "inbox", beat(1)); !errors.Is(err, ErrStopped) {
			t.Errorf("got %v, want ErrStopped", err)
		}
		if _, err := a.Conn("another:1"); !errors.Is(err, ErrStopped) {
			t.Errorf("got %v, want ErrStopped", err)
		}
		a.Stop().Wait()
	}
}

// TestStopDoesNotWaitForTheDead longer than FlushTimeout, nor for those that are down at all.
func TestStopDoesNotWaitForTheDead(t *testing.T) {
	a, b := startNode(t, func(c *Config) { c.FlushTimeout = 50 * time.Millisecond }), startNode(t)
	p := startProxy(t, b.Address())
	a.connected(t, p.address())
	p.pause(true)
	for a.Tell(p.address(), "inbox", padded(64<<10)) == nil {
	}
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { _ = l.Close() })
	mustTell(t, a, l.Addr().String(), "inbox", beat(1))
	began := time.Now()
	a.Stop().Wait()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Stop took %v", took)
	}
	if got := a.Stats().Queued.Load(); got != 0 {
		t.Errorf("%d bytes are queued after Stop, want 0", got)
	}
}

// TestStopEndsWhatOthersOpened, so that a server stops gracefully.
func TestStopEndsWhatOthersOpened(t *testing.T) {
	a, b := startNode(t), startNode(t)
	a.connected(t, b.Address())
	b.Stop().Wait()
	b.server.GracefulStop()
	eventually(t, "the peer is down", func() bool { return a.is(b.Address(), down) })
}

func TestNotStarted(t *testing.T) {
	r := New(Config{Address: "127.0.0.1:1"})
	if err := r.Tell("127.0.0.1:2", "inbox", beat(1)); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v, want ErrStopped", err)
	}
	r.Stop().Wait()
}

// TestConnServesOtherCalls, over the connection that the messages use, and ends them when the peer
// stands still.
func TestConnServesOtherCalls(t *testing.T) {
	a := startNode(t, func(c *Config) { c.StallAfter = 2 * time.Second })
	b := startNode(t)
	p := startProxy(t, b.Address())
	a.connected(t, p.address())
	conn, err := a.Conn(p.address())
	if err != nil {
		t.Fatal(err)
	}
	client := healthv1.NewHealthClient(conn)
	if _, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	connections := len(p.conns) / 2
	p.mu.Unlock()
	if connections != 1 {
		t.Errorf("%d connections, want 1", connections)
	}
	p.pause(true)
	if _, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	p.pause(false)
	eventually(t, "it answers again", func() bool {
		_, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{})
		return err == nil
	})
}
