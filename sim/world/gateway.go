package world

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// try is a message at a door, from the broker's hand to the PUBACK (rule G1).
type try struct {
	m       *message
	s       *mqttSession
	e       *entry
	conn    int
	at      int64 // received
	attempt int
	done    bool
}

// routeTimeout is how long another node may take to answer before a message takes the slow path.
const routeTimeout = 250 * time.Millisecond

// take receives a message from the broker.
func (p *process) take(s *mqttSession, e *entry) {
	w := p.w
	w.token++
	w.tokens[w.token] = e.m
	p.tries[w.token] = &try{m: e.m, s: s, e: e, conn: s.conn, at: w.now + p.skew}
	p.route(w.token)
}

// route sends a message to the owner of its partition, as far as p knows who that is, or else into ingest.
func (p *process) route(token uint64) {
	t := p.tries[token]
	if t == nil || t.done {
		return
	}
	t.attempt++
	attempt := t.attempt
	msg := t.m.host(t.at)
	msg.Token = token
	id, _, _, ok := p.peers.Server(t.m.part)
	if !ok {
		id, ok = p.table.Owner(t.m.part)
	}
	if p.w.rng.IntN(p.w.climate.slow) == 0 { // full, or so it seems
		ok = false
	}
	switch {
	case !ok:
		p.slow(token)
	case id == p.n.name:
		if !p.offer(t.m.part, msg, door{p, p.n.name}) {
			p.slow(token)
		}
	default:
		p.w.net.send(p.n.name, id, packet{call: func(to *process) {
			if !to.offer(t.m.part, msg, door{to, p.n.name}) {
				to.answer(p.n.name, token, host.NotOwner)
			}
		}})
		beside{p}.After(routeTimeout, func() {
			if !t.done && t.attempt == attempt {
				p.slow(token)
			}
		})
	}
}

// offer gives a message to the partition that p serves.
func (p *process) offer(part int32, msg host.Message, reply host.Reply) bool {
	if p.host.Takes(part, time.Second) != nil {
		return false
	}
	if b := p.w.broken; b != nil && b.offer != nil && b.offer(p, p.w.byPayload[string(msg.Payload)]) {
		return true
	}
	msg.Reply = reply
	p.w.byPayload[string(msg.Payload)].chances++
	return p.host.Offer(context.Background(), part, []host.Message{msg}, time.Second) == nil
}

// slow appends a message to ingest.
func (p *process) slow(token uint64) {
	t := p.tries[token]
	t.attempt++
	p.w.counts.slow++
	p.ingest.sessions[t.m.part].send(&flight{message: t.m, at: t.at, done: func(_ int64, err error) {
		if err != nil {
			p.verdict(token, host.Busy)
			return
		}
		p.verdict(token, host.Released)
	}})
}

// verdict is what became of a message.
func (p *process) verdict(token uint64, v host.Verdict) {
	t := p.tries[token]
	switch {
	case p.dead || t == nil || t.done:
	case v == host.Released:
		t.done = true
		delete(p.tries, token)
		t.m.acked = true
		t.s.done(t.e, p, t.conn)
	default:
		attempt := t.attempt
		beside{p}.After(time.Duration(1+p.w.rng.IntN(30))*time.Millisecond, func() {
			if t.attempt == attempt {
				p.route(token)
			}
		})
	}
}

// answer sends a verdict back to the door that asked.
func (p *process) answer(to string, token uint64, v host.Verdict) {
	if to == p.n.name {
		p.verdict(token, v)
		return
	}
	p.w.net.send(p.n.name, to, packet{call: func(q *process) { q.verdict(token, v) }})
}

// door implements host.Reply for messages of the node asks.
type door struct {
	p    *process
	asks string
}

// Done implements host.Reply.
func (d door) Done(tokens []uint64, v host.Verdict) {
	if d.p.dead {
		return
	}
	for _, token := range tokens {
		if v == host.Released {
			d.p.w.released(token, d)
		}
		d.p.answer(d.asks, token, v)
	}
}
