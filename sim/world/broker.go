package world

import (
	"context"
	"errors"
	"slices"
	"time"
)

// mqttSession is what the broker keeps for one node: messages of the shared subscription until they are
// acknowledged, whether anybody is connected or not.
type mqttSession struct {
	node    *node
	holder  *process // who is connected with the node's client id; nil: nobody
	conn    int      // number of the connection: an acknowledgement of an older one is for nobody
	entries []*entry
	frozen  bool // nothing of it arrives
}

// entry is a message in a session.
type entry struct {
	m        *message
	received bool // by the holder, in this connection
}

var errDisconnected = errors.New("not connected to the broker")

// publish has the broker take m, for one of the sessions; false: there is none.
func (w *World) publish(m *message) bool {
	var up, all []*mqttSession
	for _, n := range w.nodes {
		if s := n.session; s != nil {
			all = append(all, s)
			if s.holder != nil && s.holder.n == n {
				up = append(up, s)
			}
		}
	}
	if len(up) == 0 {
		up = all
	}
	if len(up) == 0 {
		return false
	}
	s := up[w.rng.IntN(len(up))]
	s.entries = append(s.entries, &entry{m: m})
	for _, n := range m.numbers {
		w.published[n] = w.now
	}
	w.tracef("publish %s to the session of %s", m, s.node.name)
	return true
}

// hold connects p to a session; whoever was is thrown out.
func (s *mqttSession) hold(p *process) {
	s.holder = p
	s.conn++
	for _, e := range s.entries {
		e.received = false
	}
}

// disconnect ends all connections of p.
func (w *World) disconnect(p *process) {
	for _, n := range w.nodes {
		if n.session != nil && n.session.holder == p {
			n.session.hold(nil)
		}
	}
}

// hand gives the holder of a session its next message; false: there is none.
func (w *World) hand(s *mqttSession) bool {
	if s == nil || s.frozen || s.holder == nil || s.holder.idle() {
		return false
	}
	for _, e := range w.sent(s) {
		if !e.received {
			e.received = true
			s.holder.take(s, e)
			return true
		}
	}
	return false
}

// sent is what the broker has sent on the connection of a session: no more than its window.
func (w *World) sent(s *mqttSession) []*entry {
	if w.climate.window == 0 {
		return s.entries
	}
	return s.entries[:min(w.climate.window, len(s.entries))]
}

// done takes e out of its session, if the connection by which it came is still there.
func (s *mqttSession) done(e *entry, p *process, conn int) {
	if s.holder == p && s.conn == conn {
		s.entries = slices.DeleteFunc(s.entries, func(x *entry) bool { return x == e })
	}
}

// clear implements peers.Config.Clear: it returns when all that is in the session now is acknowledged.
func (p *process) clear(context.Context) error {
	s := p.n.session
	if s == nil || s.holder != p {
		return errDisconnected
	}
	conn, sent := s.conn, slices.Clone(s.entries) // also what is held back for want of a window
	if b := p.w.broken; b != nil && b.sentOnly {
		sent = slices.Clone(p.w.sent(s))
	} else if b != nil && b.unclear {
		return nil
	}
	waits := func() bool {
		return s.holder == p && s.conn == conn && slices.ContainsFunc(s.entries, func(e *entry) bool { return slices.Contains(sent, e) })
	}
	for waits() {
		if !p.park(func() bool { return !waits() }) {
			return errProcess
		}
	}
	if s.holder != p || s.conn != conn {
		return errDisconnected
	}
	return nil
}

// clearing asks over and over whether the node's door is clear.
func (p *process) clearing() {
	for !p.dead {
		_ = p.peers.Clear(context.Background()) // asked again anyway
		until := p.w.now + int64(50*time.Millisecond)
		if !p.park(func() bool { return p.w.now >= until }) {
			return
		}
	}
}

// attend connects p to its session when it may, and sees to those of dead nodes, by the rules of
// cluster/registry.
func (w *World) attend(p *process) (changed bool) {
	if p.table == nil || !p.table.Has(p.n.name) || !p.fresh || p.leaving {
		return false
	}
	if r := w.group.recorded(p.n.name); r.GetIncarnation() != p.incarnation {
		w.group.put(p.n.name, record(p.n))
		return true
	}
	if s := p.n.session; s == nil || s.holder != p {
		var others []string
		for _, m := range p.table.Members {
			if m.ID != p.n.name {
				others = append(others, m.ID)
			}
		}
		if !p.peers.Met(others, time.Second) && w.now-p.born < int64(3*time.Second) {
			return false
		}
		if s == nil {
			p.n.session = &mqttSession{node: p.n}
		}
		p.n.session.hold(p)
		w.tracef("%s connects to the broker", p.n.name)
		return true
	}
	if b := w.broken; p.table.Members[0].ID != p.n.name || b != nil && b.unadopted {
		return false
	}
	for _, n := range w.nodes {
		if !p.table.Has(n.name) && w.adopt(p, n) {
			changed = true
		}
	}
	return changed
}

// adopt has p take over the session of a dead node, until it is empty.
func (w *World) adopt(p *process, n *node) bool {
	rec, s := w.group.recorded(n.name), n.session
	switch {
	case rec == nil:
		return false
	case s == nil || s.holder == p && len(s.entries) == 0:
		n.session = nil
		w.group.put(n.name, nil)
		w.tracef("%s has adopted %s", p.n.name, n.name)
	case s.holder != p:
		s.hold(p)
		w.counts.adoptions++
		w.tracef("%s adopts %s: %d messages", p.n.name, n.name, len(s.entries))
	default:
		return false
	}
	return true
}
