package group

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// gate is the network between a node and its Kafka. Frozen, nothing passes and nothing is lost, as for
// a process that is stopped or packets that are dropped; cut, connections break and none is made.
type gate struct {
	mu     sync.Mutex
	open   chan struct{} // closed: not frozen
	cut    bool
	closed chan struct{}
	conns  map[net.Conn]struct{}
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), closed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(g.open)
	return g
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

// sever breaks all connections, and the making of new ones until mend.
func (g *gate) sever() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = true
	for c := range g.conns {
		c.Close()
	}
}

func (g *gate) mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = false
}

// close lets go of everything.
func (g *gate) close() {
	close(g.closed)
	g.sever()
}

// dial connects through the gate.
func (g *gate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	far, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, mine := net.Pipe()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut {
		far.Close()
		return nil, errors.New("connection refused")
	}
	g.conns[mine], g.conns[far] = struct{}{}, struct{}{}
	go g.pass(far, mine)
	go g.pass(mine, far)
	return near, nil
}

// pass hands on what comes, while the gate is open.
func (g *gate) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-g.closed:
			return
		}
		if _, werr := to.Write(b[:n]); werr != nil || errors.Is(err, io.EOF) || err != nil {
			return
		}
	}
}
