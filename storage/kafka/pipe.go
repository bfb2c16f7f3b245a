package kafka

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBytes is the buffer of one direction of an in-process connection.
const pipeBytes = 256 << 10

// pipeConn is one end of a connection within the process. Unlike net.Pipe it is buffered, so that a
// request costs one handing over between goroutines, not one for each piece it is read in.
type pipeConn struct {
	in, out *pipe
	addr    net.Addr
}

func newPipeConns(addr net.Addr) (a, b *pipeConn) {
	x, y := newPipe(), newPipe()
	return &pipeConn{in: x, out: y, addr: addr}, &pipeConn{in: y, out: x, addr: addr}
}

func (c *pipeConn) Read(b []byte) (int, error)        { return c.in.read(b) }
func (c *pipeConn) Write(b []byte) (int, error)       { return c.out.write(b) }
func (c *pipeConn) LocalAddr() net.Addr               { return c.addr }
func (c *pipeConn) RemoteAddr() net.Addr              { return c.addr }
func (c *pipeConn) SetReadDeadline(t time.Time) error { c.in.setDeadline(&c.in.reader, t); return nil }

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writer, t)
	return nil
}

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.reader, t)
	c.out.setDeadline(&c.out.writer, t)
	return nil
}

// Close ends both directions for both ends.
func (c *pipeConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

// pipe is one direction: a ring of bytes between one reader and one writer.
type pipe struct {
	mu             sync.Mutex
	ring           []byte
	start, used    int
	closed         bool
	reader, writer side
}

// side is who waits at one end of a pipe, and until when.
type side struct {
	cond     sync.Cond
	deadline time.Time
	timer    *time.Timer // wakes the side when its deadline passes
}

func newPipe() *pipe {
	p := &pipe{}
	p.reader.cond.L, p.writer.cond.L = &p.mu, &p.mu
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.reader.over():
			return 0, os.ErrDeadlineExceeded
		case p.used == 0 && p.closed:
			return 0, io.EOF
		case p.used == 0:
			p.reader.wait()
			continue
		}
		break
	}
	n := copy(b, p.ring[p.start:min(p.start+p.used, len(p.ring))])
	n += copy(b[n:], p.ring[:max(0, min(p.start+p.used-len(p.ring), p.used-n))])
	if p.used == len(p.ring) {
		p.writer.cond.Broadcast()
	}
	p.start, p.used = (p.start+n)%len(p.ring), p.used-n
	if p.used == 0 {
		p.start = 0
	}
	return n, nil
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ring == nil {
		p.ring = make([]byte, pipeBytes)
	}
	done := 0
	for done < len(b) {
		switch {
		case p.closed:
			return done, net.ErrClosed
		case p.writer.over():
			return done, os.ErrDeadlineExceeded
		case p.used == len(p.ring):
			p.writer.wait()
			continue
		}
		at := (p.start + p.used) % len(p.ring)
		n := copy(p.ring[at:min(at+len(p.ring)-p.used, len(p.ring))], b[done:])
		if p.used == 0 {
			p.reader.cond.Broadcast()
		}
		p.used, done = p.used+n, done+n
	}
	return done, nil
}

// over says that the side's deadline has passed. Under the pipe's lock, as wait.
func (s *side) over() bool { return !s.deadline.IsZero() && !time.Now().Before(s.deadline) }

// wait parks the side until the other has moved, or its deadline has passed.
func (s *side) wait() {
	if s.deadline.IsZero() {
		s.cond.Wait()
		return
	}
	if left := time.Until(s.deadline); s.timer == nil {
		s.timer = time.AfterFunc(left, func() {
			s.cond.L.Lock()
			defer s.cond.L.Unlock()
			s.cond.Broadcast()
		})
	} else {
		s.timer.Reset(left)
	}
	s.cond.Wait() // the timer runs on: others may wait for it, and waking nobody does no harm
}

func (p *pipe) setDeadline(s *side, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.deadline = t
	if !t.IsZero() {
		s.cond.Broadcast() // it may be over already, or be sooner than the one waited for
	}
}

func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.reader.cond.Broadcast()
	p.writer.cond.Broadcast()
}

// doors is a listener that takes connections from the network and from within the process.
type doors struct {
	net.Listener
	addr   net.Addr // what clients are told
	inside chan net.Conn
	closed chan struct{}
	failed chan error
	once   sync.Once
}

func newDoors(ln net.Listener, advertise net.Addr) *doors {
	d := &doors{Listener: ln, addr: advertise, inside: make(chan net.Conn), closed: make(chan struct{}), failed: make(chan error, 1)}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				d.failed <- err
				return
			}
			select {
			case d.inside <- c:
			case <-d.closed:
				_ = c.Close()
			}
		}
	}()
	return d
}

// Addr implements net.Listener.
func (d *doors) Addr() net.Addr { return d.addr }

// Accept implements net.Listener.
func (d *doors) Accept() (net.Conn, error) {
	select {
	case c := <-d.inside:
		return c, nil
	case err := <-d.failed:
		return nil, err
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *doors) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// dial connects from within.
func (d *doors) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := newPipeConns(d.addr)
	select {
	case d.inside <- theirs:
		return ours, nil
	case <-d.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
