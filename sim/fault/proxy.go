package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is a link that can be cut and stalled: a TCP proxy in this process. It serves from its making
// until Close. Its methods may be called from any goroutine.
type Proxy struct {
	listener net.Listener
	upstream string
	up, down gate // towards the server, and back
	produce  *surgeon
	// gates are those of a client's connections, where clients are told apart; nil: up and down.
	gates func(client net.Conn) (up, down *gate)

	mu     sync.Mutex // guards what follows
	pairs  map[*pair]struct{}
	cut    bool
	closed bool

	running sync.WaitGroup
}

// NewProxy listens on a free port of loopback and leads to upstream, HOST:PORT. Nobody needs to listen
// there yet. It can hit produce requests if it speaks Kafka.
func NewProxy(ctx context.Context, upstream string, kafka bool) (*Proxy, error) {
	p := &Proxy{upstream: upstream}
	if kafka {
		p.produce = &surgeon{}
	}
	return p, p.open(ctx)
}

// open listens and begins to serve.
func (p *Proxy) open(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.listener, p.pairs = l, make(map[*pair]struct{})
	p.running.Go(p.accept)
	return nil
}

// Addr is where it listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends it and all its connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.reset()
	p.running.Wait()
}

// Cut resets every connection, and those to come until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
	p.reset()
}

// Stall stops bytes in one or both directions, until Heal. Nobody is told.
func (p *Proxy) Stall(up, down bool) {
	if up {
		p.up.shut()
	}
	if down {
		p.down.shut()
	}
}

// Heal ends Cut and Stall.
func (p *Proxy) Heal() {
	p.mu.Lock()
	p.cut = false
	p.mu.Unlock()
	p.up.open()
	p.down.open()
}

// Hit lets the next n produce requests go wrong: Unanswered or Torn.
func (p *Proxy) Hit(k Kind, n int) { p.produce.arm(k, n) }

// Hits is how many produce requests were hit so far.
func (p *Proxy) Hits() int { return int(p.produce.hits.Load()) }

func (p *Proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.reset()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve is the life of a connection.
func (p *Proxy) serve(client net.Conn) {
	c := &pair{client: tcp(client), done: make(chan struct{})}
	p.mu.Lock()
	refused := p.cut || p.closed
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		c.reset()
		p.mu.Lock()
		delete(p.pairs, c)
		p.mu.Unlock()
	}()
	up, down := &p.up, &p.down
	if p.gates != nil {
		up, down = p.gates(client)
	}
	if refused || !up.pass(c.done) {
		return
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	server, err := d.Dial("tcp", p.upstream)
	if err != nil || !c.join(tcp(server)) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		if p.produce != nil {
			p.produce.copy(c, up)
		} else {
			forward(c.server, c.client, up, c, nil)
		}
	})
	both.Go(func() { forward(c.client, c.server, down, c, &c.muted) })
	both.Wait()
}

// forward copies one direction until it ends; then the other side learns that nothing more comes. While
// muted, what arrives is thrown away.
func forward(to, from *net.TCPConn, g *gate, c *pair, muted *atomic.Bool) {
	buf := make([]byte, 64<<10)
	for {
		if !g.pass(c.done) {
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			if !g.hold(c.done) || !g.pass(c.done) {
				return
			}
			if muted != nil && muted.Load() {
				c.answer()
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				c.reset()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		default:
			c.reset()
			return
		}
	}
}

// pair is one connection through a proxy.
type pair struct {
	client *net.TCPConn
	muted  atomic.Bool // the server's answers are thrown away

	mu       sync.Mutex // guards what follows
	server   *net.TCPConn
	done     chan struct{} // closed by reset
	ended    bool
	answered chan struct{} // closed when the server has spoken while muted
}

// join adds the server's side; false: the pair was reset meanwhile.
func (c *pair) join(server *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		_ = server.Close()
		return false
	}
	c.server = server
	return true
}

// reset ends both sides as a pulled cable and a rebooted router would: no goodbye, nothing delivered late.
func (c *pair) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	close(c.done)
	for _, side := range []*net.TCPConn{c.client, c.server} {
		if side != nil {
			_ = side.SetLinger(0)
			_ = side.Close()
		}
	}
}

// mute throws answers away from now on; the channel is closed with the first of them.
func (c *pair) mute() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = make(chan struct{})
	c.muted.Store(true)
	return c.answered
}

func (c *pair) answer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.answered:
	default:
		close(c.answered)
	}
}

// tcp is what listeners and dialers of TCP give.
func tcp(c net.Conn) *net.TCPConn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		panic(fmt.Sprintf("proxy: %T is no TCP connection", c))
	}
	return t
}
