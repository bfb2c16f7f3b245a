package world

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/router"
)

// try is a message at a door, from the broker's hand to the PUBACK (rule G1).
type try struct {
	m    *message
	s    *mqttSession
	e    *entry
	conn int
	at   int64 // received
}

// take receives a message from the broker.
func (p *process) take(s *mqttSession, e *entry) {
	w := p.w
	w.token++
	p.tries[w.token] = &try{m: e.m, s: s, e: e, conn: s.conn, at: w.now + p.skew}
	p.arrived = append(p.arrived, w.token)
}

// reading is the door's reader: it hands on what has arrived, and waits while the router does.
func (p *process) reading() {
	for p.park(func() bool { return len(p.arrived) > 0 }) {
		msgs := make([]host.Message, 0, len(p.arrived))
		for _, token := range p.arrived {
			msg := p.tries[token].m.host(p.tries[token].at)
			msg.Token, msg.Reply = token, door{p}
			msgs = append(msgs, msg)
		}
		p.arrived = p.arrived[:0]
		_ = p.router.Deliver(p.ctx, msgs) // what it did not take it has answered
	}
}

// door implements host.Reply for what a process took from the broker.
type door struct{ p *process }

// Done implements host.Reply.
func (d door) Done(tokens []uint64, v host.Verdict) {
	p := d.p
	for _, token := range tokens {
		t := p.tries[token]
		switch {
		case p.dead:
		case t == nil:
			p.w.fail("%s answers a message twice", p.n.name)
		case v == host.Released:
			delete(p.tries, token)
			p.w.acknowledged(t.m, p.n.name)
			t.s.done(t.e, p, t.conn)
			t.m.acked = true
		default:
			again := time.Duration(1+p.w.rng.IntN(30)) * time.Millisecond
			beside{p}.After(again, func() { p.arrived = append(p.arrived, token) })
		}
	}
}

// acknowledged sees a PUBACK: what it is for must be durable (I1).
func (w *World) acknowledged(m *message, by string) {
	if !m.stored {
		w.shards[m.part].judge.released(m, by)
	}
}

// route implements router.Config.Route.
func (p *process) route(part int32) router.Route {
	id, _, _, ok := p.peers.Server(part)
	if !ok {
		id, ok = p.table.Owner(part)
	}
	switch {
	case !ok:
		return router.Route{}
	case id == p.n.name:
		return router.Route{Local: true}
	}
	return router.Route{Address: id}
}

// owners implements router.Owners: the host's mailboxes, with somebody who looks at what is acknowledged.
type owners struct{ p *process }

// Push implements router.Owners.
func (o owners) Push(ctx context.Context, part int32, msgs []host.Message) error {
	return o.Offer(ctx, part, msgs, 0)
}

// Takes implements router.Owners.
func (o owners) Takes(part int32, patience time.Duration) error {
	return o.p.host.Takes(part, patience)
}

// Partition implements router.Owners.
func (o owners) Partition(part int32) host.View { return o.p.host.Partition(part) }

// Offer implements router.Owners.
func (o owners) Offer(ctx context.Context, part int32, msgs []host.Message, patience time.Duration) error {
	p := o.p
	if err := p.host.Takes(part, patience); err != nil {
		return err
	}
	if p.w.rng.IntN(p.w.climate.slow) == 0 {
		return host.ErrSaturated // or so it seems
	}
	taken := make([]host.Message, 0, len(msgs))
	for i := range msgs {
		m := p.w.message(msgs[i].Device, msgs[i].Payload)
		if b := p.w.broken; b != nil && b.offer != nil && b.offer(p, m) {
			msgs[i].Reply.Done([]uint64{msgs[i].Token}, host.Released)
			continue
		}
		m.chances++
		msg := msgs[i]
		msg.Reply = &witness{p, m, msg.Reply}
		taken = append(taken, msg)
	}
	return p.host.Offer(ctx, part, taken, patience)
}

// witness implements host.Reply for one message: it sees who acknowledges it.
type witness struct {
	p *process
	m *message
	host.Reply
}

// Done implements host.Reply.
func (x *witness) Done(tokens []uint64, v host.Verdict) {
	if x.p.dead {
		return
	}
	if v == host.Released {
		x.p.w.shards[x.m.part].judge.released(x.m, x.p.n.name)
	}
	x.Reply.Done(tokens, v)
}

// sideways implements router.Beside.
type sideways struct{ p *process }

// Now implements router.Beside.
func (s sideways) Now() time.Time { return s.p.time() }

// Go implements router.Beside.
func (s sideways) Go(fn func()) { s.p.spawn(fn) }

// Timer implements router.Beside.
func (s sideways) Timer(fn func()) router.Timer { return &resettable{p: s.p, fn: fn} }

// Wait implements router.Beside.
func (s sideways) Wait(ctx context.Context, change <-chan struct{}, limit time.Duration) bool {
	until := s.p.w.now + int64(limit)
	changed := func() bool {
		select {
		case <-change:
			return true
		default:
			return false
		}
	}
	return s.p.park(func() bool { return changed() || ctx.Err() != nil || s.p.w.now >= until }) && changed()
}

// resettable implements router.Timer.
type resettable struct {
	p      *process
	fn     func()
	serial int // of the last Reset or Stop: what was due before is not any more
	armed  bool
}

// Reset implements router.Timer.
func (t *resettable) Reset(d time.Duration) bool {
	was := t.Stop()
	t.armed = true
	serial := t.serial
	beside{t.p}.After(d, func() {
		if t.serial == serial {
			t.armed = false
			t.fn()
		}
	})
	return was
}

// Stop implements router.Timer.
func (t *resettable) Stop() bool {
	was := t.armed
	t.serial++
	t.armed = false
	return was
}
