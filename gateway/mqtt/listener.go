package mqtt

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

const (
	// acceptWait is the pause after a failed accept, mostly for want of file descriptors.
	acceptWait = 50 * time.Millisecond
	// connectWait is how long a connection may take to send CONNECT.
	connectWait = 10 * time.Second
)

// listener accepts devices for the embedded broker. Unlike mochi's own it survives a failed accept,
// throws out connections that never say CONNECT, and knows all its connections.
type listener struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	wg     sync.WaitGroup
}

func newListener(l net.Listener, log *slog.Logger) *listener {
	return &listener{Listener: l, log: log, conns: map[net.Conn]struct{}{}}
}

// Init implements mochi's Listener; the socket is open already.
func (l *listener) Init(*slog.Logger) error { return nil }

// ID implements mochi's Listener.
func (l *listener) ID() string { return "mqtt" }

// Protocol implements mochi's Listener.
func (l *listener) Protocol() string { return "tcp" }

// Address implements mochi's Listener.
func (l *listener) Address() string { return l.Addr().String() }

// Serve implements mochi's Listener.
func (l *listener) Serve(establish listeners.EstablishFn) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.log.WarnContext(context.Background(), "connection not accepted", "error", err)
			time.Sleep(acceptWait)
			continue
		}
		if !l.add(c) {
			_ = c.Close()
			return
		}
		go func() {
			defer l.remove(c)
			_ = c.SetReadDeadline(time.Now().Add(connectWait)) // the broker sets its own after CONNECT
			_ = establish(l.ID(), c)                           // how a connection ends is nobody's error
		}()
	}
}

func (l *listener) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	l.wg.Add(1)
	return true
}

func (l *listener) remove(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	l.wg.Done()
}

// Close implements mochi's Listener. It ends no connection: mochi's way to do so takes a read lock
// twice and can deadlock with a client that is just leaving.
func (l *listener) Close(listeners.CloseFn) { l.stopAccepting() }

func (l *listener) stopAccepting() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.Listener.Close()
}

// closeAll cuts what is still connected and waits until all is gone.
func (l *listener) closeAll() {
	l.mu.Lock()
	for c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
