package remote

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// condition of a peer.
type condition uint8

const (
	// connecting: for the first time, or just after its stream ended. A little is buffered.
	connecting condition = iota
	// up: it answers.
	up
	// down: a connection could not be made, or it stood still. Nothing is buffered.
	down
)

// chunk is a batch of encoded envelopes: the body of one ExchangeRequest.
type chunk struct {
	bytes    *[]byte
	messages int
}

// peer is another node, or this one. What is told to it waits in chunks, which its goroutine, run,
// sends one after the other.
type peer struct {
	r       *Remote
	address string
	conn    *grpc.ClientConn
	socket  atomic.Pointer[net.Conn] // the newest one below conn
	heard   *atomic.Int64

	life context.Context    //nolint:containedctx // the life of the peer, which Forget and Stop end
	kill context.CancelFunc // ends it
	wake chan struct{}      // something waits; holds one

	mu        sync.Mutex
	condition condition
	chunks    []chunk
	queued    int    // bytes in chunks and in the one being sent
	count     uint64 // messages taken since the last stream ended
}

func newPeer(r *Remote, address string) (*peer, error) {
	p := &peer{r: r, address: address, heard: r.heard.of(address), wake: make(chan struct{}, 1)}
	conn, err := grpc.NewClient("passthrough:///"+address, r.dialOptions(p)...)
	if err != nil {
		return nil, err
	}
	p.conn = conn
	p.life, p.kill = context.WithCancel(r.stopped)
	if address == r.cfg.Address {
		p.condition = up
	}
	return p, nil
}

// tell appends e to what waits.
func (p *peer) tell(e envelope) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.r.stopping.Err() != nil:
		return ErrStopped
	case p.condition == down || p.life.Err() != nil:
		return ErrDown
	}
	id := p.count + 1
	s := e.sizes(id)
	switch {
	case s.total > p.r.cfg.MaxMessage:
		return fmt.Errorf("%w: %s of %d bytes", ErrTooLarge, e.typeName(), s.message)
	case p.condition == connecting && p.queued > 0 && p.queued+s.total > p.r.cfg.Buffer/connectingShare:
		return ErrDown
	case p.queued+s.total > p.r.cfg.Buffer:
		return ErrFull
	}
	c := p.room(s.total)
	b, err := e.appendTo(*c.bytes, id, s)
	if err != nil {
		return fmt.Errorf("encode %s: %w", e.typeName(), err)
	}
	*c.bytes = b
	c.messages++
	p.count = id
	p.queued += s.total
	p.r.stats.Queued.Add(int64(s.total))
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return nil
}

// room returns the chunk that takes n more bytes. Under mu.
func (p *peer) room(n int) *chunk {
	if i := len(p.chunks) - 1; i >= 0 && len(*p.chunks[i].bytes)+n <= batchBytes {
		return &p.chunks[i]
	}
	b := p.r.chunks.Get(0)
	p.chunks = append(p.chunks, chunk{bytes: b})
	return &p.chunks[len(p.chunks)-1]
}

// take returns the next batch; it counts as queued until it is done.
func (p *peer) take() (c chunk, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.chunks) == 0 || p.chunks[0].messages == 0 { // 0: its only message could not be encoded
		return chunk{}, false
	}
	c = p.chunks[0]
	p.chunks[0] = chunk{}
	if p.chunks = p.chunks[1:]; len(p.chunks) == 0 {
		p.chunks = nil
	}
	return c, true
}

// done says that n bytes of a batch wait no more.
func (p *peer) done(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued -= n
	p.r.stats.Queued.Add(int64(-n))
}

func (p *peer) is(c condition) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.condition == c
}

// become changes the condition and returns the one before. Unless the peer is up now, what waits is
// thrown away: its senders are told sooner than it could arrive, and tell again or elsewhere.
func (p *peer) become(c condition) condition {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.condition
	p.condition = c
	if c != up {
		for _, c := range p.chunks {
			p.r.stats.Dropped.Add(uint64(c.messages))
			p.queued -= len(*c.bytes)
			p.r.stats.Queued.Add(int64(-len(*c.bytes)))
			p.r.chunks.Put(c.bytes)
		}
		p.chunks = nil
		p.count = 0
	}
	return was
}
