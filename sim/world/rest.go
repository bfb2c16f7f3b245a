package world

import (
	"slices"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// patience is how long a world may take, faults over, until everything is acknowledged, applied and known:
// forced gaps after a minute included.
const patience = 150 * time.Second

// rest ends all faults, waits until nothing is under way, and holds everything against the fold; then once
// more after a restart from what is stored.
func (w *World) rest() {
	w.tracef("all faults end")
	w.climate.lag = 0
	for _, l := range w.net.links {
		l.cut = false
	}
	for _, n := range w.nodes {
		n.capacity = 1
		if p := n.p; p != nil {
			p.cut = false
			p.resume()
		}
	}
	if !w.settle(w.quiet) || w.found != "" {
		return
	}
	w.final()
	w.obeyed()
	if w.found != "" {
		return
	}
	w.restart()
}

// restart ends all nodes, compacts what can be, and has one restore everything.
func (w *World) restart() {
	w.tracef("restart")
	for _, s := range w.shards {
		s.state.compactAll()
	}
	for _, n := range w.nodes {
		if n.p != nil {
			w.crash(n.p)
		}
	}
	w.group.members, w.strays = nil, nil
	w.boot(w.nodes[w.rng.IntN(len(w.nodes))])
	if w.settle(w.quiet) && w.found == "" {
		w.final()
	}
}

// settle lets everything happen until ok; false: it takes too long.
func (w *World) settle(ok func() bool) bool {
	for end := w.now + int64(patience); w.now < end; {
		w.people()
		for range 1000 {
			if !w.drain() || w.found != "" {
				break
			}
		}
		if w.found != "" || ok() {
			return true
		}
		w.pass(100 * time.Millisecond)
	}
	w.fail("stuck, %s: %s", w.lack(), w.standing())
	return false
}

// people sees that somebody lives, and that the group knows who does not.
func (w *World) people() {
	for _, n := range w.nodes {
		if n.p != nil {
			n.p.obey(true)
		}
	}
	up := 0
	for _, n := range w.nodes {
		up += b2i(n.p != nil && !n.p.leaving)
	}
	if up == 0 {
		for _, n := range w.nodes {
			if n.p == nil {
				w.boot(n)
				break
			}
		}
	}
	for _, p := range slices.Clone(w.group.members) {
		if p.dead {
			w.expel(p)
		}
	}
}

// drain lets everything that can happen without the passing of time happen once.
func (w *World) drain() (busy bool) {
	for _, d := range w.loads {
		for len(d.unsent) > 0 {
			left := len(d.unsent)
			if w.publishNext(d); len(d.unsent) == left {
				break
			}
			busy = true
		}
	}
	for _, n := range w.nodes {
		for w.hand(n.session) {
			busy = true
		}
	}
	for _, l := range w.net.links {
		for w.net.deliver(l) {
			busy = true
		}
	}
	for _, s := range w.strays {
		for s.land(lands) {
			busy = true
		}
	}
	w.strays = nil
	if w.tellAll() {
		busy = true
	}
	for _, n := range w.nodes {
		if n.p != nil && !n.p.paused && n.p.drain() {
			busy = true
		}
	}
	return busy
}

func (p *process) drain() (busy bool) {
	for _, all := range [...][]*session{p.log.sessions, p.state.sessions, p.ingest.sessions, p.alerts.sessions} {
		for _, s := range all {
			for s.land(lands) {
				busy = true
			}
			for s.answer() {
				busy = true
			}
		}
	}
	for p.finish(false) {
		busy = true
	}
	for range 64 {
		if len(p.routines) == 0 || !p.goOn(0) {
			break
		}
		busy = true
	}
	if !p.dead && p.w.learn(p) {
		busy = true
	}
	return !p.dead && p.run() || busy
}

// server is the process that serves a partition by the table; nil: none yet.
func (w *World) server(part int32) *process {
	var server *process
	for _, n := range w.nodes {
		p := n.p
		switch {
		case p == nil || p.paused || !p.steps.Owned(part):
		case server != nil || p.host.Partition(part).State != host.Serving:
			return nil
		default:
			server = p
		}
	}
	if id, ok := w.group.table.Owner(part); server == nil || !ok || id != server.n.name {
		return nil
	}
	return server
}

// quiet says that nothing is under way any more.
func (w *World) quiet() bool {
	for _, d := range w.loads {
		if len(d.unsent) > 0 || !w.shards[d.part].judge.has(d) {
			return false
		}
	}
	for _, n := range w.nodes {
		if s := n.session; s != nil && (len(s.entries) > 0 || n.p == nil) || n.p != nil && (len(n.p.tries) > 0 || n.p.leaving) {
			return false
		}
	}
	if len(w.tellings) > 0 || w.untold() != "" {
		return false
	}
	for _, s := range w.shards {
		j := s.judge
		p := w.server(s.id)
		if p == nil || p.steps.Ingested(s.id) < s.ingest.end() || j.told < len(j.real) {
			return false
		}
		if p.steps.Next(s.id) != s.log.end() {
			return false
		}
		for _, tw := range j.twins {
			if tw.HeldSince() != 0 {
				return false
			}
		}
	}
	return true
}

// final holds the fold against what the devices know, and the nodes against the fold.
func (w *World) final() {
	for _, d := range w.loads {
		w.shards[d.part].judge.final(d)
	}
	for _, s := range w.shards {
		s.judge.readers()
		looked := false
		p := w.server(s.id)
		p.steps.Look(s.id, func(next int64, hash uint64, ok bool) {
			looked = ok
			if ok {
				s.judge.looked(p.n.name, next, hash)
			}
		})
		for range 100 {
			if w.drain(); looked {
				break
			}
		}
		if !looked && w.found == "" {
			w.fail("%s does not answer", p.n.name)
		}
	}
	for _, n := range w.nodes {
		if p := n.p; p != nil {
			if d := p.host.Stats().ReplayDifferences.Load(); d != 0 {
				w.fail("%s found %d differences at its replay", n.name, d)
			}
			if a := p.host.Stats().Accounts(); a.InFlight != 0 {
				w.fail("%s: the accounts do not balance: %+v", n.name, a)
			}
		}
	}
}

// has says whether all samples of a device took effect.
func (j *judge) has(d *load) bool {
	for _, m := range d.sent {
		for _, n := range m.numbers {
			if !j.settled[n] {
				return false
			}
		}
	}
	return true
}

// final holds the fold of a device against what the device knows.
func (j *judge) final(d *load) {
	tw := j.twins[d.id]
	if tw == nil || !d.numbered || d.sum.Samples == 0 {
		return
	}
	c := tw.Counters()
	if tw.Lives() > 0 { // a twin that is back has digests of its own
		if n := tw.FormerRows() + c.Applied + c.Late; n != d.sum.Samples {
			j.fail("%s: %d samples in all its lives, want %d", d.id, n, d.sum.Samples)
		}
		return
	}
	switch {
	case tw.SetDigest() != d.sum.Set:
		j.fail("%s: set digest %x, want %x: %d applied and %d late of %d", d.id, tw.SetDigest(), d.sum.Set, c.Applied, c.Late, d.sum.Samples)
	case j.w.climate.laggards || j.forced > 0:
	case c.Late > 0:
		j.fail("%s: %d samples late that were never behind", d.id, c.Late)
	case tw.Digest() != d.sum.Digest:
		j.fail("%s: digest %x, want %x: not applied in order", d.id, tw.Digest(), d.sum.Digest)
	}
}
