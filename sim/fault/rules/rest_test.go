package rules

import (
	"context"
	"testing/synctest"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// rest ends all faults and waits until everything is acknowledged and known.
func (w *world) rest() {
	for i := range 4000 {
		for _, n := range w.running() {
			n.resume()
			n.fetchMore(1 << 20)
			if n != w.owner {
				n.setStale()
			}
		}
		w.learn()
		w.keepOwner()
		if d := w.devices[i%len(w.devices)]; len(d.unsent) > 0 {
			w.send(d.take(w.rng))
		}
		w.sendAgain()
		w.landIngest(4)
		busy := w.drain()
		synctest.Wait()
		if w.judge.verdict() != "" {
			return
		}
		if !busy && w.quiet() {
			w.check()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.judge.fail("stuck: %d messages unacknowledged, %d nodes, owner paused %t, ingest handled to %d of %d",
		len(w.open), len(w.nodes), w.owner.paused(), w.judge.src.Offset, w.ingest.end())
}

// drain lets everything on its way arrive and be answered.
func (w *world) drain() (busy bool) {
	for _, s := range w.sessions() {
		for w.landOne(s, lands) {
			busy = busy || s.t == w.log
		}
		for s.ack() {
			busy = busy || s.t == w.log
		}
	}
	for _, n := range w.running() {
		for n.finish(false) {
			busy = true
		}
	}
	return busy
}

func (w *world) quiet() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.devices {
		if len(d.unsent) > 0 {
			return false
		}
	}
	serving, _ := w.owner.host.Restored()
	return len(w.open) == 0 && len(w.onWay) == 0 && len(w.running()) == 1 && serving == 1 && w.judge.handled(uint64(w.ingest.end()))
}

// check holds everything against the fold, once as it is and once more after a restart from what is stored.
func (w *world) check() {
	w.wait(15 * time.Second) // the owner has nothing left to write
	if w.visit(); w.judge.verdict() != "" {
		return
	}
	w.wait(8 * time.Second) // idle checks, held samples, effects
	if !w.quietFor() {
		return
	}
	w.judge.final(w.devices, w.gaps || w.judge.gaveUp())
	w.live(w.owner)
	if w.judge.verdict() != "" {
		return
	}
	w.state.compactAll()
	w.owner.crash()
	w.owner = w.boot()
	if w.quietFor() {
		w.live(w.owner)
	}
}

// wait lets time pass in which everything arrives and is answered.
func (w *world) wait(d time.Duration) {
	const tick = 200 * time.Millisecond
	for range d / tick {
		time.Sleep(tick)
		w.drain()
		w.keepOwner()
		w.owner.fetchMore(1 << 20)
		synctest.Wait()
	}
}

// visit lets a node that thinks it was given the partition claim it, take the last messages and leave: the
// owner, with nothing to write, must notice by itself (T8).
func (w *world) visit() {
	guest := w.boot()
	guest.setStale()
	for range 1000 {
		guest.fetchMore(1 << 20)
		w.drain()
		w.keepOwner()
		synctest.Wait()

		serving, _ := guest.host.Restored()
		for _, d := range w.devices {
			if m := d.last; m != nil && serving == 1 {
				w.sendTo(guest, m, false)
				d.last = nil
			}
		}
		w.mu.Lock()
		again := w.again
		w.again = nil
		waiting := len(w.open)
		w.mu.Unlock()
		for _, m := range again {
			w.sendTo(guest, m, false)
		}
		if serving == 1 && waiting == 0 && w.devices[0].last == nil || w.judge.verdict() != "" {
			guest.alive()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for range 500 {
		w.drain()
		synctest.Wait()
		if guest.over() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.judge.fail("a guest does not leave")
}

// quietFor waits until the owner serves.
func (w *world) quietFor() bool {
	for range 1000 {
		w.drain()
		w.keepOwner()
		w.owner.fetchMore(1 << 20)
		synctest.Wait()
		if serving, _ := w.owner.host.Restored(); serving == 1 && !w.drain() {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.judge.fail("nobody serves")
	return false
}

func (w *world) live(n *node) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	served := map[string]twinState{}
	err := n.host.EachTwin(ctx, 0, func(t *doppelv1.Twin) bool {
		c := t.GetCounters()
		served[t.GetId()] = twinState{
			t.GetDigest(), t.GetSetDigest(), t.GetVersion(), t.GetBoot(), t.GetSeq(),
			c.GetApplied(), c.GetLate(), c.GetHeld(), c.GetMissing(), c.GetGaps(),
		}
		return true
	})
	if err != nil {
		w.judge.fail("node %s answers no query: %v", n.name, err)
		return
	}
	w.judge.live(n.name, served)
	if a, err := n.host.StateHash(ctx, 0); err != nil {
		w.judge.fail("node %s has no state hash: %v", n.name, err)
	} else {
		w.judge.looked(n.name, a.GetNextOffset(), a.GetStateHash())
	}
	if d := n.host.Stats().ReplayDifferences.Load(); d != 0 {
		w.judge.fail("node %s found %d differences at its replay", n.name, d)
	}
}

// end stops all hosts.
func (w *world) end() {
	if w.heir != nil {
		w.heir.host.Drop(0)
	}
	for _, n := range w.all {
		n.crash()
	}
	for _, n := range w.all {
		if !n.done {
			<-n.ended
		}
	}
}
