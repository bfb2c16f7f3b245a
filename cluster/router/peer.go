package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/remote"
)

const (
	// sweepEvery is how often the flights of a peer are looked at while there are any.
	sweepEvery = 25 * time.Millisecond
	// gather is how long what comes at once, one partition after the other, is waited for at least.
	gather = 50 * time.Microsecond
	// flushMessages in one flight are sent without waiting for more.
	flushMessages = 256
	// firstMute and longestMute bound how long a node is left alone that is heard of but answers no
	// request; doubled each time.
	firstMute, longestMute = 250 * time.Millisecond, 4 * time.Second
)

// urgency is when the queue is to be sent.
type urgency uint8

const (
	idle   urgency = iota // it is empty
	soon                  // Config.Linger after the last time
	urgent                // now
)

// peer is another node as a place to send messages to: a window of flights. It has no goroutine; two
// timers run while there are flights.
//
// Once a message has entered, exactly one of these answers it: a verdict (verdict.go), the slow path
// (because its time is over, or the node is given up; sweep.go), or close.
type peer struct {
	r       *Router
	address string

	sender  sync.Mutex // held while requests are sent, so that they leave in order; before mu
	request []byte

	mu       sync.Mutex
	flights  map[uint64]*flight // by id; those of queue too
	queue    []*flight          // not sent yet; the last may be filled
	next     uint64             // id of the next flight
	messages int                // in flights
	bytes    int
	change   chan struct{} // closed when room is made
	crowded  bool          // waiting for room was in vain; until half of it is free nobody does again
	closed   bool

	down     bool          // given up...
	downAt   time.Time     // ...until it is heard of later than this
	mute     time.Duration // of the last time it left a request alone; zero: it answers
	mutedTil time.Time
	answered time.Time // last verdict

	flush, sweep Timer
	flushing     urgency
	flushed      time.Time
	sweeping     bool // sweep is armed
	spare        []*flight
}

func newPeer(r *Router, address string) *peer {
	p := &peer{
		r: r, address: address, flights: make(map[uint64]*flight),
		// Verdicts for an earlier run of this node must not fit.
		next: rand.Uint64() &^ (flightMessages - 1),
	}
	p.flush, p.sweep = r.cfg.Beside.Timer(p.send), r.cfg.Beside.Timer(p.look)
	return p
}

// peer returns the peer of an address.
func (r *Router) peer(address string) *peer {
	r.peersMu.RLock()
	p := r.peers[address]
	r.peersMu.RUnlock()
	if p != nil {
		return p
	}
	r.peersMu.Lock()
	defer r.peersMu.Unlock()
	if p = r.peers[address]; p == nil {
		p = newPeer(r, address)
		p.closed = r.closed
		r.peers[address] = p
	}
	return p
}

// enter takes msgs of partition part, all or none, without blocking. begin is when they were delivered.
func (p *peer) enter(begin time.Time, part int32, msgs []host.Message) error {
	p.mu.Lock()
	if err := p.takes(); err != nil {
		p.mu.Unlock()
		return err
	}
	for i := range msgs {
		m := &msgs[i]
		size := weight(m)
		f := p.filling(size)
		if f == nil {
			f = p.begin(begin)
		}
		if begin.Before(f.born) {
			f.born = begin
		}
		f.add(part, m, size)
		p.bytes += size
	}
	p.messages += len(msgs)
	if !p.sweeping {
		p.sweeping = true
		p.sweep.Reset(sweepEvery)
	}
	p.arm()
	p.mu.Unlock()
	return nil
}

// arm sees to it that the queue is sent: at once, if it has enough for a request or nothing was sent
// for a while. Under mu, like all below.
func (p *peer) arm() {
	switch enough := len(p.queue) > 1 || len(p.queue[0].msgs) >= flushMessages; {
	case p.flushing == urgent || p.flushing == soon && !enough:
	case enough:
		p.flushing = urgent
		p.flush.Reset(gather)
	default:
		p.flushing = soon
		p.flush.Reset(max(p.r.cfg.Linger-p.r.now().Sub(p.flushed), gather))
	}
}

// filling is the flight that takes a message of that size, if there is one.
func (p *peer) filling(size int) *flight {
	if n := len(p.queue); n > 0 && p.queue[n-1].left > 0 && p.queue[n-1].hasRoom(size) {
		return p.queue[n-1]
	}
	return nil
}

func (p *peer) begin(at time.Time) *flight {
	var f *flight
	if n := len(p.spare); n > 0 {
		f, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		f = new(flight)
	}
	f.id, f.born, f.kept = p.next, at, true
	p.next += flightMessages
	p.flights[f.id] = f
	p.queue = append(p.queue, f)
	return f
}

// takes says whether messages may enter now.
func (p *peer) takes() error {
	switch {
	case p.closed:
		return host.ErrClosed
	case p.down && !p.r.cfg.Wire.Heard(p.address).After(p.downAt):
		return errDown
	case p.mute > 0 && p.r.now().Before(p.mutedTil):
		return errDown
	case p.messages >= p.r.cfg.PeerWindow || p.bytes >= p.r.cfg.PeerWindowBytes:
		if p.crowded {
			return host.ErrSaturated
		}
		return errNoRoom
	}
	p.down = false
	return nil
}

// open is why the way is closed, other than for want of room.
func (p *peer) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.takes(); !errors.Is(err, errNoRoom) {
		return err
	}
	return nil
}

// finish takes f, all of which is settled, out of the window.
func (p *peer) finish(f *flight) {
	delete(p.flights, f.id)
	p.messages -= len(f.msgs)
	p.bytes -= f.bytes
	if p.messages <= p.r.cfg.PeerWindow/2 && p.bytes <= p.r.cfg.PeerWindowBytes/2 {
		p.crowded = false
	}
	if p.change != nil {
		close(p.change)
		p.change = nil
	}
	if !f.kept && len(p.spare) < 16 {
		f.reset()
		p.spare = append(p.spare, f)
	}
}

// waitRoom waits until the window takes messages, or is closed for another reason than being full.
func (p *peer) waitRoom(ctx context.Context, limit time.Duration) {
	for end := p.r.now().Add(limit); ; {
		p.mu.Lock()
		if !errors.Is(p.takes(), errNoRoom) {
			p.mu.Unlock()
			return
		}
		if p.change == nil {
			p.change = make(chan struct{})
		}
		change := p.change
		p.mu.Unlock()
		switch {
		case p.r.cfg.Beside.Wait(ctx, change, end.Sub(p.r.now())):
		case ctx.Err() != nil:
			return
		default:
			p.mu.Lock()
			p.crowded = p.crowded || errors.Is(p.takes(), errNoRoom)
			p.mu.Unlock()
			return
		}
	}
}

// send sends the queue.
func (p *peer) send() {
	p.sender.Lock()
	defer p.sender.Unlock()
	for {
		f := p.pop()
		if f == nil {
			return
		}
		p.request = f.appendTo(p.request[:0])
		err := p.r.cfg.Wire.TellEncoded(p.address, inboxName, codec.DeliveryType, p.request)
		p.mu.Lock()
		f.kept = false
		if err == nil {
			p.r.stats.forwarded.Add(uint64(len(f.msgs)))
			p.mu.Unlock()
			continue
		}
		why := saturated
		if !errors.Is(err, remote.ErrFull) {
			why = down
			p.giveUp()
		}
		var lost strays
		lost.take(p, f, accepted, why)
		p.mu.Unlock()
		lost.divert(p.r)
	}
}

// pop takes the flight to be sent next out of the queue.
func (p *peer) pop() *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		f := p.queue[0]
		p.queue = append(p.queue[:0], p.queue[1:]...)
		if f.left > 0 { // or its time was over
			f.at = p.r.now()
			f.asked = f.at
			return f
		}
	}
	p.flushing, p.flushed = idle, p.r.now()
	return nil
}

// close gives everything back to its door.
func (p *peer) close() {
	p.flush.Stop()
	p.sweep.Stop()
	var all answers
	p.mu.Lock()
	p.closed = true
	for _, id := range p.ids() {
		f := p.flights[id]
		for i := range f.msgs {
			if f.advance(i, settled) {
				all.add(&f.msgs[i])
			}
		}
		p.finish(f)
	}
	p.mu.Unlock()
	all.tell(host.Busy)
}
