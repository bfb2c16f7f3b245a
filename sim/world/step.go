package world

import (
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// step lets one thing happen.
func (w *World) step() {
	w.counts.steps++
	w.act(w.climate.pick(w.rng))
}

func (w *World) act(a action) {
	r := w.rng
	switch a {
	case publishes:
		w.publishNext(w.loads[r.IntN(len(w.loads))])
	case publishesTwice:
		if d := w.loads[r.IntN(len(w.loads))]; len(d.sent) > 0 {
			w.publish(d.sent[r.IntN(len(d.sent))])
		}
	case hands:
		w.hand(w.nodes[r.IntN(len(w.nodes))].session)
	case packets:
		w.net.deliver(w.link())
	case lnds:
		w.land(1+r.IntN(4), lands)
	case answers:
		w.answer(1 + r.IntN(4))
	case finishes:
		if p := w.someone(); p != nil {
			p.finish(r.IntN(8) == 0)
		}
	case goes:
		if p := w.someone(); p != nil && len(p.routines) > 0 {
			p.goOn(r.IntN(len(p.routines)))
		}
	case runs:
		if p := w.someone(); p != nil {
			p.run()
		}
	case naps:
		w.pass(time.Duration(1 + r.Int64N(int64(w.climate.nap))))
	case sleeps:
		w.pass(w.climate.nap + time.Duration(r.Int64N(int64(w.climate.sleep))))
	case learns:
		if p := w.someone(); p != nil {
			w.learn(p)
		}
	case writes:
		if p := w.someone(); p != nil {
			w.write(p)
		}
	case looks:
		if p := w.someone(); p != nil {
			w.lookAt(p, int32(r.IntN(len(w.shards))))
		}
	case tells:
		if n := len(w.tellings); n > 0 {
			w.tell(r.IntN(n), r.IntN(8) == 0)
		}
	default:
		w.strike(a)
	}
}

// strike lets a fault begin or end.
func (w *World) strike(a action) {
	r := w.rng
	p := w.someone()
	switch a { //nolint:exhaustive // the others are no faults
	case pauses:
		w.pauseOne(p)
	case resumes:
		for _, n := range w.nodes {
			if n.p != nil && n.p.paused {
				w.tracef("%s goes on", n.name)
				n.p.resume()
				break
			}
		}
	case crashes:
		if p != nil {
			w.tracef("%s crashes", p.n.name)
			w.crash(p)
		}
	case starts:
		if n := w.nodes[r.IntN(len(w.nodes))]; n.p == nil {
			w.tracef("%s starts", n.name)
			w.boot(n)
		}
	case leaves:
		if p != nil {
			w.leave(p)
		}
	case cutsLog:
		if p != nil {
			p.cut = !p.cut
			w.tracef("%s cut from the log: %t", p.n.name, p.cut)
		}
	case cutsLink, drops:
		l := w.link()
		if l.packets = nil; a == cutsLink {
			l.cut = !l.cut
			w.tracef("link %s-%s cut: %t", l.from, l.to, l.cut)
		}
	case faults:
		w.land(1, 1+fate(r.IntN(int(fates)-1)))
	case expels:
		w.expelOne()
	case rebalances:
		n := w.nodes[r.IntN(len(w.nodes))]
		n.capacity = (n.capacity + 1 + r.IntN(2)) % 3
		w.rebalance()
	case compacts:
		w.shards[r.IntN(len(w.shards))].state.compactAll()
	case truncates:
		w.truncate(w.shards[r.IntN(len(w.shards))])
	case ambushes:
		w.ambush(w.shards[r.IntN(len(w.shards))])
	case orders:
		w.ordered(r)
	case obeys:
		if p != nil {
			p.obey(false)
		}
	case alertsFail:
		if p != nil {
			p.alerts.sessions[r.IntN(len(w.shards))].failAll()
		}
	}
}

// ambush lets checkpoints land that somebody sent long ago, hides all others of their devices behind them, and
// often ends the owner before it can write these anew (T12).
func (w *World) ambush(s *shard) {
	landed := false
	for _, stray := range w.strays {
		for stray.t == &s.state && stray.land(lands) {
			landed = true
		}
	}
	server := w.server(s.id)
	for _, n := range w.nodes {
		for n.p != nil && n.p != server && n.p.state.sessions[s.id].land(lands) {
			landed = true
		}
	}
	if !landed {
		return
	}
	w.tracef("old checkpoints of partition %d land", s.id)
	s.state.compactAll()
	if server != nil && w.rng.IntN(2) == 0 {
		w.tracef("%s crashes", server.n.name)
		w.crash(server)
	}
}

// someone is a process that runs; nil: the die fell on one that does not.
func (w *World) someone() *process {
	p := w.nodes[w.rng.IntN(len(w.nodes))].p
	if p == nil || p.paused {
		return nil
	}
	return p
}

func (w *World) publishNext(d *load) {
	if len(d.unsent) > 0 && w.publish(d.unsent[0]) {
		d.sent = append(d.sent, d.unsent[0])
		d.unsent = d.unsent[1:]
	}
}

func (w *World) link() *link {
	return w.net.links[w.rng.IntN(len(w.net.links))]
}

// pass lets time pass: timers, and a turn of everybody.
func (w *World) pass(d time.Duration) {
	w.advance(d)
	for _, n := range w.nodes {
		if p := n.p; p != nil && !p.paused {
			p.step()
		}
	}
}

// sessions are all connections to the log that work, those of crashed processes too.
func (w *World) session() *session {
	r := w.rng
	for len(w.strays) > 0 && w.now-w.strays[0].since > int64(w.climate.pause) {
		w.strays = w.strays[1:]
	}
	if len(w.strays) > 0 && r.IntN(8) == 0 {
		return w.strays[r.IntN(len(w.strays))].session
	}
	p := w.nodes[r.IntN(len(w.nodes))].p
	if p == nil || p.cut || p.paused && r.IntN(4) > 0 {
		return nil
	}
	part := r.IntN(len(w.shards))
	switch r.IntN(8) {
	case 0, 1:
		return p.ingest.sessions[part]
	case 2:
		return p.alerts.sessions[part]
	case 3, 4:
		return p.state.sessions[part]
	default:
		return p.log.sessions[part]
	}
}

// land lets up to k records of some connection reach their log, or not.
func (w *World) land(k int, what fate) {
	s := w.session()
	if s == nil {
		return
	}
	if what != lands && s.isAlerts() {
		s.failAll()
		return
	}
	for range k {
		if !s.land(what) {
			break
		}
	}
}

// isAlerts: a client that gives up on a record gives up on all behind it; only where the order of what
// follows is checked anyway may the world be worse.
func (s *session) isAlerts() bool { return s.t.landed != nil && s == s.p.alerts.sessions[s.shard()] }

func (s *session) shard() int {
	for i := range s.p.alerts.sessions {
		if s.p.alerts.sessions[i] == s {
			return i
		}
	}
	return 0
}

func (w *World) answer(k int) {
	s := w.session()
	if s == nil || s.p.idle() {
		return
	}
	for range k {
		if !s.answer() {
			break
		}
	}
}

// finish ends the oldest dead letter under way; failing: it is not done.
func (p *process) finish(failing bool) bool {
	if len(p.jobs) == 0 {
		return false
	}
	j := p.jobs[0]
	p.jobs = p.jobs[1:]
	if failing {
		j.done(errFault)
		return true
	}
	j.land()
	j.done(nil)
	return true
}

func (w *World) lookAt(p *process, part int32) {
	if p.host.Partition(part).State != host.Serving {
		return
	}
	p.steps.Look(part, func(next int64, hash uint64, ok bool) {
		if ok && !p.dead {
			w.shards[part].judge.looked(p.n.name, next, hash)
		}
	})
}

func (w *World) pauseOne(p *process) {
	if p == nil {
		return
	}
	w.tracef("%s stands still", p.n.name)
	p.pause()
	w.after(time.Duration(1+w.rng.Int64N(int64(w.climate.pause))), p.resume)
}

// expelOne has the group give up on a member: mostly one that is not heard from.
func (w *World) expelOne() {
	if len(w.group.members) == 0 {
		return
	}
	p := w.group.members[w.rng.IntN(len(w.group.members))]
	if p.idle() || p.cut || w.rng.IntN(4) == 0 {
		w.expel(p)
	}
}

// leave has p hand over what it serves and end.
func (w *World) leave(p *process) {
	if p.leaving || len(w.group.members) < 2 {
		return
	}
	w.tracef("%s leaves", p.n.name)
	p.leaving = true
	w.expel(p)
	p.spawn(func() {
		for i := range w.shards {
			p.steps.Leave(int32(i))
		}
		owns := func() bool {
			for i := range w.shards {
				if p.steps.Owned(int32(i)) {
					return true
				}
			}
			return false
		}
		for owns() {
			if !p.park(func() bool { return !owns() }) {
				return
			}
		}
		w.after(0, func() { w.gone(p) })
	})
}

// gone ends a process that has handed everything over; what waits in its session is adopted.
func (w *World) gone(p *process) {
	if !p.dead {
		w.tracef("%s has left", p.n.name)
		w.crash(p)
	}
}

// truncate removes what was not needed long ago (C4).
func (w *World) truncate(s *shard) {
	for _, n := range s.needs {
		if w.now-n.at > int64(w.climate.keep) {
			s.log.truncate(n.Changelog.Next)
			s.ingest.truncate(n.Ingest)
		}
	}
}
