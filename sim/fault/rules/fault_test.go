package rules

import (
	"context"
	"slices"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// sessions are all connections to the log, those of crashed nodes too.
func (w *world) sessions() []*session {
	var all []*session
	w.strays = slices.DeleteFunc(w.strays, func(s stray) bool { return time.Since(s.since) > w.pace.pause })
	for _, s := range w.strays {
		all = append(all, s.session)
	}
	for _, n := range w.nodes {
		if !n.paused() {
			all = append(all, n.log, n.state)
		}
	}
	return all
}

// land lets up to k records of some connection, and of what goes to ingest, reach their log.
func (w *world) land(k int) {
	all := w.sessions()
	if len(all) == 0 || w.rng.IntN(8) == 0 {
		w.landIngest(k)
		return
	}
	s := all[w.rng.IntN(len(all))]
	for range k {
		if !w.landOne(s, lands) {
			break
		}
	}
}

func (w *world) landOne(s *session, f fate) bool {
	offsets, r := s.land(f)
	if s.t == w.log {
		for _, o := range offsets {
			w.judge.landed(o, r.key, r.value)
		}
	}
	return r != nil
}

func (w *world) landIngest(k int) {
	for range k {
		w.mu.Lock()
		if len(w.onWay) == 0 {
			w.mu.Unlock()
			return
		}
		m := w.onWay[0]
		w.onWay = w.onWay[1:]
		w.stored = append(w.stored, w.message(m))
		m.acked = true
		delete(w.open, m)
		w.mu.Unlock()
		for _, n := range m.numbers {
			w.judge.stored(n)
		}
		w.ingest.append([]byte(m.device), nil)
	}
}

func (w *world) ingested(offset int64) host.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stored[offset]
}

func (w *world) answer(k int) {
	all := w.sessions()
	if len(all) == 0 {
		return
	}
	s := all[w.rng.IntN(len(all))]
	for range k {
		if !s.ack() {
			break
		}
	}
}

func (w *world) finish(failing bool) {
	for _, n := range w.running() {
		if !n.paused() {
			n.finish(failing)
		}
	}
}

func (w *world) pauseOrResume() {
	for _, n := range w.running() {
		if n.paused() {
			n.resume()
			return
		}
	}
	n := w.owner
	n.pause()
	time.AfterFunc(w.pace.pause, n.resume)
}

// crash ends the owner; some of what was on its way still lands later.
func (w *world) crash() {
	n := w.owner
	n.crash()
	for _, s := range []*session{n.log, n.state} {
		s.mu.Lock()
		if left := len(s.queue) - s.landed; left > 0 {
			s.queue = s.queue[:s.landed+w.rng.IntN(left+1)]
		}
		s.mu.Unlock()
		w.strays = append(w.strays, stray{s, time.Now()})
	}
}

// move gives the partition to a new node. The old one does not know, and is often paused.
func (w *world) move() {
	if len(w.running()) > 2 {
		return
	}
	if w.tardyOnly || w.rng.IntN(3) == 0 {
		w.tardy()
		return
	}
	old := w.owner
	old.setStale()
	if w.rng.IntN(2) == 0 {
		old.pause()
		time.AfterFunc(w.pace.pause, func() {
			old.resume()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.revenge = old
		})
	}
	w.owner = w.boot()
}

// tardy boots a node that claims and then stands still, before it has restored anything, while the owner
// claims again.
func (w *world) tardy() {
	n := w.boot()
	synctest.Wait()
	w.landOne(n.log, lands)
	n.pause()
	n.log.ack()
	time.AfterFunc(w.pace.pause, n.resume)
	time.AfterFunc(w.pace.pause+50*time.Millisecond, func() {
		w.lookAt(n)
		n.setStale()
	})
}

// late lets the old checkpoints of a node that was paused land, and often ends the owner then, before it
// can repair anything (T12).
func (w *world) late() {
	w.mu.Lock()
	old := w.revenge
	w.revenge = nil
	w.mu.Unlock()
	if old == nil || old.crashed() || w.rng.IntN(4) == 0 {
		return
	}
	for w.landOne(old.state, lands) {
	}
	if w.rng.IntN(2) == 0 {
		w.state.compactAll()
		w.crash()
	}
}

// look asks some node for its state hash.
func (w *world) look() {
	all := w.running()
	if len(all) == 0 {
		return
	}
	go w.lookAt(all[w.rng.IntN(len(all))])
}

func (w *world) lookAt(n *node) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if a, err := n.host.StateHash(ctx, 0); err == nil && !n.crashed() {
		w.judge.looked(n.name, a.GetNextOffset(), a.GetStateHash())
	}
}

// learn tells stale nodes that they have lost the partition.
func (w *world) learn() {
	for _, n := range w.running() {
		if n.isStale() {
			n.alive()
		}
	}
}

func (w *world) fault() {
	if w.stateFails {
		w.landOne(w.owner.state, fails)
		return
	}
	s := w.owner.log
	if w.rng.IntN(2) == 0 {
		s = w.owner.state
	}
	w.landOne(s, fate(1+w.rng.IntN(4)))
}

func (w *world) need(n host.Needs) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.needs = append(w.needs, needed{time.Now(), n})
}

// truncate removes what was not needed long ago (C4).
func (w *world) truncate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.needs {
		if time.Since(n.at) > w.pace.keep {
			w.log.truncate(n.Changelog.Next)
			w.ingest.truncate(n.Ingest)
		}
	}
}
