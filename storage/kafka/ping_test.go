package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// stalling passes everything to a connection until it is frozen; then answers stay away.
type stalling struct {
	net.Conn
	frozen *atomic.Bool
	thawed chan struct{}
}

// Read implements net.Conn.
func (s stalling) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.frozen.Load() {
		<-s.thawed
	}
	return n, err
}

// TestPingKeepsItsTime: a log that takes connections and says nothing is not waited for.
func TestPingKeepsItsTime(t *testing.T) {
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	var frozen atomic.Bool
	thawed := make(chan struct{})
	cfg := Config{
		Brokers: []string{e.Addr()}, Partitions: 2, TopicPrefix: "ping.", Logger: slog.New(slog.DiscardHandler),
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return stalling{conn, &frozen, thawed}, err
		},
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	frozen.Store(true)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		err := c.Ping(ctx)
		cancel()
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("ping of a silent log: %v after %v, want %v at once", err, took, context.DeadlineExceeded)
		}
	}
	frozen.Store(false)
	close(thawed)
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("ping of a log that is back: %v", err)
	}
}
