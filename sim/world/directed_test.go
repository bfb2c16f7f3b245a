package world

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/sim/device"
)

// Schedules for broken variants that chance meets too seldom. Each is played twice: as the protocol is, which must
// find nothing, and broken, which must find what it is about.
var directed = []struct {
	name   string
	breaks breaks
	want   string
	play   func(t *testing.T, w *World)
}{
	{"no-idle-check", breaks{host: changelog(noIdleCheck)}, `an owner does not know the end`, lateClaim},
	{"late-as-duplicate", breaks{offer: lateIsDuplicate}, `stands in no record that counts`, behindAGap},
	{"ckpt-stale-trusted", breaks{host: floors(trustStale)}, `has state hash|differences at its replay`, staleCheckpoint},
	{"floor-no-position", breaks{host: floorNowhere}, `samples took no effect`, floorInFlight},
	{"alerts-no-repair", breaks{byArrival: true}, `of an alert .* newest`, lateAlert},
	{"clear-at-once", breaks{unclear: true}, `a gap gives up on`, onItsWay},
}

func TestDirected(t *testing.T) {
	lab := NewLab()
	for _, d := range directed {
		t.Run(d.name, func(t *testing.T) {
			if found := lab.direct(t, nil, d.play); found != "" {
				t.Errorf("without anything broken: %s", found)
			}
			if found := lab.direct(t, &d.breaks, d.play); !regexp.MustCompile(d.want).MatchString(found) {
				t.Errorf("found %q, want %s", found, d.want)
			}
		})
	}
}

// direct plays a schedule in a world of two nodes, one partition and one device, where nothing happens by chance.
func (l *Lab) direct(t *testing.T, broken *breaks, play func(*testing.T, *World)) string {
	t.Helper()
	seed := uint64(1)
	for ; newClimate(seeded(seed)).nodes != 2 || newClimate(seeded(seed)).partitions != 1; seed++ {
	}
	b := breaks{}
	if broken != nil {
		b = *broken
	}
	b.climate = func(c *climate) {
		*c = climate{nodes: 2, partitions: 1, devices: 1, messages: 2, slow: 1 << 40, pause: time.Second, keep: time.Minute, nap: 1, sleep: 1, laggards: true}
	}
	w := l.world(seed, &b, nil)
	defer w.end(&Counts{})
	w.loads[0].unsent, w.loads[0].numbered, w.loads[0].sum = nil, true, device.Chain{}
	for _, n := range w.nodes {
		if n.p == nil {
			w.boot(n)
		}
	}
	w.run(t, "one owner", func() bool { return w.server(0) != nil && w.nodes[0].session != nil && w.nodes[1].session != nil })
	play(t, w)
	if w.found == "" {
		w.rest()
	}
	return w.found
}

// run lets everything happen until ok.
func (w *World) run(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		for w.drain() && w.found == "" {
		}
		if ok() || w.found != "" {
			return
		}
		w.pass(50 * time.Millisecond)
	}
	t.Fatalf("never came: %s: %s", what, w.standing())
}

// owner is the process that serves, and other the one that does not.
func (w *World) both(t *testing.T) (owner, other *process) {
	t.Helper()
	owner = w.server(0)
	if owner == nil {
		t.Fatalf("nobody serves: %s", w.standing())
	}
	return owner, w.nodes[1-owner.n.slot].p
}

// send publishes a sample to the session of p.
func (w *World) send(p *process, seq uint64, value float64) *message {
	d := w.loads[0]
	at := epoch + int64(seq)*int64(10*time.Millisecond)
	n := number{d.id, 1, seq}
	m := &message{
		kind: host.Telemetry, device: d.id, part: d.part, numbers: []number{n},
		payload: fmt.Sprintf(`{"boot":1,"samples":[{"seq":%d,"time":%d,"metrics":{"t":%v}}]}`, seq, at, value),
	}
	d.sum.Add(&device.Sample{Boot: 1, Seq: seq, Time: at, Readings: []device.Reading{{Name: "t", Value: value}}})
	d.sent = append(d.sent, m)
	w.known[m.name()] = m
	w.published[n] = w.now
	p.n.session.entries = append(p.n.session.entries, &entry{m: m})
	return m
}

// takeOver has p stand still and be given up by the group, until another process serves.
func (w *World) takeOver(t *testing.T, p *process) {
	t.Helper()
	p.pause()
	w.expel(p)
	w.run(t, "another owner", func() bool { return w.server(0) != nil && w.server(0) != p })
}

// lateClaim: a claim of a node that has lost the partition again lands late. The owner, which has nothing to
// write and is told by nobody, must find out by itself (T7, T8).
func lateClaim(t *testing.T, w *World) {
	owner, other := w.both(t)
	m := w.send(owner, 1, 20)
	w.run(t, "the message", func() bool { return m.acked })
	for range 100 { // ticks, an anchor, checkpoints: it has nothing left to write
		w.drain()
		w.pass(100 * time.Millisecond)
	}
	other.host.Own(0)
	other.steps.Step(0)
	other.host.Drop(0)
	other.steps.Step(0)
	end := w.shards[0].log.end()
	w.run(t, "a claim", func() bool { return w.shards[0].log.end() > end })
}

// behindAGap: a sample comes when its number was given up on (T11).
func behindAGap(t *testing.T, w *World) {
	owner, _ := w.both(t)
	for _, seq := range []uint64{1, 3} {
		w.send(owner, seq, 20)
	}
	w.run(t, "a gap", func() bool { return w.counts.gaps > 0 })
	m := w.send(owner, 2, 20)
	w.run(t, "the late sample", func() bool { return m.acked })
}

// onItsWay: a sample waits for the one in front of it, which the broker has sent to another door.
func onItsWay(t *testing.T, w *World) {
	owner, other := w.both(t)
	w.run(t, "rest", func() bool { return owner.peers.Settled() && w.now > epoch+int64(20*time.Second) })
	other.n.session.frozen = true
	w.send(other, 1, 20)
	w.pass(50 * time.Millisecond)
	m := w.send(owner, 2, 20)
	w.run(t, "the second message", func() bool { return m.acked })
	for range 20 {
		w.drain()
		w.pass(100 * time.Millisecond)
	}
	other.n.session.frozen = false
}

// staleCheckpoint: the checkpoint of an owner that stood still hides that of its successor (T12).
func staleCheckpoint(t *testing.T, w *World) {
	old, _ := w.both(t)
	old.state.sessions[0].frozen = true
	m := w.send(old, 1, 20)
	sent := old.state.sessions[0]
	w.run(t, "a checkpoint on its way", func() bool { return m.acked && len(sent.queue) > 0 })
	w.takeOver(t, old)
	owner := w.server(0)
	m = w.send(owner, 2, 20)
	w.run(t, "a checkpoint and a floor", func() bool {
		stats := owner.host.Stats()
		return m.acked && stats.Checkpoints.Load() > 0 && stats.Floors.Load() > 1 && len(w.shards[0].needs) > 0 &&
			w.shards[0].needs[len(w.shards[0].needs)-1].Changelog.Next >= w.shards[0].log.end()
	})
	sent.frozen = false
	for sent.land(lands) {
	}
	w.restart()
}

// floorInFlight: an owner writes a floor while records are in flight, and dies with them.
func floorInFlight(t *testing.T, w *World) {
	owner, _ := w.both(t)
	w.climate.slow = 1
	m := w.send(owner, 1, 20)
	records := owner.log.sessions[0]
	w.run(t, "the first message", func() bool { return m.acked && w.shards[0].judge.taken[m.numbers[0]] })
	records.frozen = true
	second := w.send(owner, 2, 20)
	w.run(t, "a record in flight", func() bool { return second.acked && len(records.queue) > 0 })
	for range 10 { // a floor waits for its release
		w.drain()
		w.pass(100 * time.Millisecond)
	}
	floors := w.shards[0].state.end()
	w.send(owner, 3, 20)
	for range 20 { // the third comes as far as the feed, and no further
		w.hand(owner.n.session)
		for i := range owner.routines {
			owner.goOn(i)
		}
		s := owner.ingest.sessions[0]
		s.land(lands)
		s.answer()
	}
	if got := w.shards[0].ingest.end(); got != 3 {
		t.Fatalf("%d records in ingest, want 3", got)
	}
	records.frozen = false
	for records.land(lands) {
	}
	for records.answer() {
	}
	records.frozen = true
	owner.step()
	for owner.state.sessions[0].land(lands) {
	}
	if w.shards[0].state.end() == floors || len(records.queue) == 0 {
		t.Fatalf("%d records of doppel.state, was %d; %d in flight, want a floor and a record", w.shards[0].state.end(), floors, len(records.queue))
	}
	w.crash(owner)
	w.strays = nil
}

// lateAlert: an alert of an owner that stood still lands behind what its successor has to say (E2).
func lateAlert(t *testing.T, w *World) {
	old, _ := w.both(t)
	sent := old.alerts.sessions[0]
	sent.frozen = true
	for _, seq := range []uint64{1, 2} {
		w.send(old, seq, 70)
	}
	w.run(t, "an alert on its way", func() bool { return len(sent.queue) > 0 })
	w.takeOver(t, old)
	for _, seq := range []uint64{3, 4} {
		w.send(w.server(0), seq, 20)
	}
	j := w.shards[0].judge
	w.run(t, "its end", func() bool { return j.told > 2 && j.told == len(j.real) })
	sent.frozen = false
	for sent.land(lands) {
	}
}
