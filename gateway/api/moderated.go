package api

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
)

// moderatedCredentials are credentials whose connections are read as a moderation says. As gRPC makes its handshake
// above them, they are below TLS, and gRPC knows the connection it sets up as the one it is.
type moderatedCredentials struct {
	credentials.TransportCredentials
	m *moderation
}

// ServerHandshake implements credentials.TransportCredentials.
func (c moderatedCredentials) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			nc = &moderatedConn{TCPConn: tcp, raw: raw, m: c.m, idle: patientTicks}
		}
	}
	return c.TransportCredentials.ServerHandshake(nc)
}

// Clone implements credentials.TransportCredentials.
func (c moderatedCredentials) Clone() credentials.TransportCredentials {
	return moderatedCredentials{c.TransportCredentials.Clone(), c.m}
}

// patientTicks is how many ticks a connection may bring nothing before it is waited for as any other.
const patientTicks = 4

// moderatedConn is a connection that is read by the tick while moderation is on and something comes. Reads belong to
// one goroutine.
type moderatedConn struct {
	*net.TCPConn
	raw  syscall.RawConn
	m    *moderation
	idle int // ticks in a row that brought nothing
}

// Read implements net.Conn.
func (c *moderatedConn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	failed := c.next(func(fd uintptr) error {
		n, err = read(fd, p)
		return err
	})
	return n, failed
}

// ReadOnReady is how gRPC reads without a buffer for each connection on which nothing comes: one is fetched from a pool
// only when there is something.
func (c *moderatedConn) ReadOnReady(size int, pool mem.BufferPool) (b *[]byte, n int, err error) {
	err = c.next(func(fd uintptr) error {
		b = pool.Get(size)
		var err error
		if n, err = read(fd, *b); err != nil {
			pool.Put(b)
			b = nil
		}
		return err
	})
	return b, n, err
}

// next has attempt read as soon as there is something to read: at a tick, if reads are moderated. attempt does not
// wait; it returns syscall.EAGAIN where there is nothing.
func (c *moderatedConn) next(attempt func(fd uintptr) error) (err error) {
	for c.idle < patientTicks {
		now := time.Now().UnixNano()
		if !c.m.look(now) {
			break
		}
		time.Sleep(readTick - time.Duration(now)%readTick) // until the same time for all
		if failed := c.raw.Read(func(fd uintptr) bool { err = attempt(fd); return true }); failed != nil {
			return failed
		}
		if !errors.Is(err, syscall.EAGAIN) {
			c.idle = 0
			return err
		}
		c.idle++
	}
	failed := c.raw.Read(func(fd uintptr) bool { err = attempt(fd); return !errors.Is(err, syscall.EAGAIN) })
	c.idle = 0
	if failed != nil {
		return failed
	}
	return err
}

// read reads without waiting; nothing more to come is io.EOF.
func read(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
