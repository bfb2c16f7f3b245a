package mqtt

import (
	"net"
	"sync"
	"testing"
)

// proxy stands between a node and its broker. Frozen connections pass nothing on and stay open, as when
// a cable is pulled or a process is stopped.
type proxy struct {
	net.Listener
	target string

	mu     sync.Mutex
	moved  sync.Cond
	conns  []*proxied
	closed bool
	wg     sync.WaitGroup
}

type proxied struct {
	near, far net.Conn
	frozen    bool // under mu of the proxy
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, target: target}
	p.moved.L = &p.mu
	p.wg.Go(p.accept)
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) addr() string { return p.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		c := &proxied{near: near, far: far}
		p.mu.Lock()
		if p.closed {
			near.Close()
			far.Close()
			p.mu.Unlock()
			return
		}
		p.conns = append(p.conns, c)
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(c, near, far) })
		p.wg.Go(func() { p.pass(c, far, near) })
	}
}

func (p *proxy) pass(c *proxied, from, to net.Conn) {
	defer c.near.Close()
	defer c.far.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for c.frozen {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// freeze or thaw the connections there are.
func (p *proxy) freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.frozen = frozen
	}
	p.moved.Broadcast()
}

// cut breaks all connections without a farewell and takes no more.
func (p *proxy) cut() {
	p.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		c.frozen = false
		c.near.Close()
		c.far.Close()
	}
	p.moved.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}
