package rules

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// breaks puts something between a host and its ports.
type breaks func(n *node, cfg *host.Config)

// world is the log, the nodes, the devices, and the one who lets things happen.
type world struct {
	rng    *rand.Rand
	broken breaks
	trace  io.Writer
	judge  *judge
	rules  *alert.Set
	limits twin.Limits
	gaps   bool // short holds: gaps happen
	pace   pace

	log, state, ingest *topic
	all, nodes         []*node // ever booted; those that are not over
	owner              *node   // where the group says the partition is
	strays             []stray
	revenge            *node // was paused, and what it sent to doppel.state meanwhile is about to land
	booted             int
	tally              *tally

	mu      sync.Mutex
	token   uint64
	tries   map[uint64]*message
	again   []*message
	onWay   []*message     // to ingest
	stored  []host.Message // what ingest holds
	needs   []needed
	devices []*deviceLoad
	open    map[*message]bool // sent and not acknowledged
}

// stray is a connection of a crashed node: some of what it sent is on its way.
type stray struct {
	*session
	since time.Time
}

type needed struct {
	at time.Time
	host.Needs
}

// pace is how long things take in a world.
type pace struct {
	nap, sleep int // milliseconds that pass at once, at most
	// pause bounds pauses, and how long what a crashed node sent is on its way.
	pause time.Duration
	// keep is how long retention keeps what was needed: longer than any pause and, on top of it, than
	// owners that crash one after another take to write a checkpoint anew (C4).
	keep time.Duration
}

// In a quick world most owners live for less than a floor takes, in a slow one a pause is longer.
var quick, slow = pace{30, 800, time.Second, 10 * time.Second}, pace{150, 3000, 12 * time.Second, 60 * time.Second}

// tally counts what happened in some worlds, to see that the faults meet something.
type tally struct{ worlds, records, void, boots, letters, ingested, gaps, forced, transitions, state, cut, late int }

func (c *tally) add(w *world) {
	j := w.judge
	c.worlds++
	c.records += int(j.valid.Next)
	c.void += j.void
	c.boots += w.booted
	c.letters += len(j.letters)
	c.ingested += len(w.stored)
	c.gaps += j.gaps
	c.forced += j.forced
	c.transitions += len(j.real)
	c.state += int(w.state.end())
	if w.log.start > 0 {
		c.cut++
	}
	for _, tw := range j.twins {
		c.late += int(tw.Counters().Late)
	}
}

// play runs one world and returns what was wrong with it; empty: nothing.
func play(t *testing.T, seed uint64, broken breaks, trace io.Writer, sum *tally) (found string) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w := &world{
			rng: rng, broken: broken, trace: trace, rules: rulesOf(), gaps: seed%3 == 0,
			log: newTopic(), state: newTopic(), ingest: newTopic(),
			tries: map[uint64]*message{}, open: map[*message]bool{}, tally: sum,
		}
		w.limits = twin.Limits{Hold: time.Hour, Held: 1024}
		if w.gaps {
			w.limits = twin.SettledLimits()
		}
		w.pace = quick
		if seed%4 == 1 {
			w.pace = slow
		}
		w.judge = newJudge(w.rules)
		w.devices = newDevices(rng, 4, 30)
		w.owner = w.boot()
		for range 900 {
			w.step()
			synctest.Wait()
			if w.judge.verdict() != "" {
				break
			}
		}
		if w.judge.verdict() == "" {
			w.rest()
		}
		w.end()
		found = w.judge.verdict()
		w.tally.add(w)
	})
	return found
}

// step lets one thing happen.
func (w *world) step() {
	w.late()
	r := w.rng
	switch p := r.IntN(1000); {
	case p < 260:
		w.send(w.devices[r.IntN(len(w.devices))].take(r))
	case p < 300:
		w.sendAgain()
	case p < 305:
		w.look()
	case p < 320: // a device that did not hear us
		w.send(w.anyOpen())
	case p < 560:
		w.land(1 + r.IntN(4))
	case p < 780:
		w.answer(1 + r.IntN(4))
	case p < 830:
		w.finish(r.IntN(8) == 0)
	case p < 845:
		w.owner.fetchMore(int64(1 + r.IntN(12)))
	case p < 930:
		time.Sleep(time.Duration(1+r.IntN(w.pace.nap)) * time.Millisecond)
	case p < 950:
		time.Sleep(time.Duration(100+r.IntN(w.pace.sleep)) * time.Millisecond)
	case p < 958:
		w.pauseOrResume()
	case p < 964:
		w.crash()
	case p < 970:
		w.move()
	case p < 975:
		w.learn()
	case p < 982:
		w.fault()
	case p < 990:
		w.state.compactAll()
	default:
		w.truncate()
	}
	w.keepOwner()
}

// running are the nodes that can take messages.
func (w *world) running() []*node {
	var all []*node
	for _, n := range w.nodes {
		if !n.crashed() && !n.over() {
			all = append(all, n)
		}
	}
	w.nodes = all
	return all
}

// keepOwner gives the partition to a new node where it has none.
func (w *world) keepOwner() {
	w.running()
	if w.owner.crashed() || w.owner.over() {
		w.owner = w.boot()
	}
}

// send routes m: mostly to the owner, sometimes to a node that was it, sometimes into ingest.
func (w *world) send(m *message) {
	if m == nil {
		return
	}
	n := w.owner
	if all := w.running(); w.rng.IntN(10) == 0 && len(all) > 0 {
		n = all[w.rng.IntN(len(all))]
	}
	w.sendTo(n, m, w.rng.IntN(8) == 0)
}

// sendTo hands m to n, or to ingest.
func (w *world) sendTo(n *node, m *message, slowly bool) {
	if m.received == 0 {
		m.received = time.Now().UnixNano()
	}
	m.sent = time.Now()
	w.mu.Lock()
	w.open[m] = true
	if !m.stored && slowly {
		m.stored = true
		w.onWay = append(w.onWay, m)
		w.mu.Unlock()
		return
	}
	w.token++
	msg := w.message(m)
	msg.Token, msg.Reply = w.token, n
	w.tries[w.token] = m
	m.open++
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := n.push(ctx, []host.Message{msg}); err != nil {
		w.verdict(n, msg.Token, host.Busy)
	}
}

func (w *world) message(m *message) host.Message {
	return host.Message{Kind: m.kind, Device: []byte(m.device), Payload: []byte(m.payload), Topic: "devices", ReceivedAt: m.received}
}

// verdict takes what a node made of a message.
func (w *world) verdict(n *node, token uint64, v host.Verdict) {
	w.mu.Lock()
	m := w.tries[token]
	delete(w.tries, token)
	if m == nil {
		w.mu.Unlock()
		w.judge.fail("node %s answers a message twice", n.name)
		return
	}
	m.open--
	first := false
	switch {
	case v == host.Released:
		first = true
		m.acked = true
		delete(w.open, m)
	case !m.acked:
		w.again = append(w.again, m)
	}
	w.mu.Unlock()
	if first {
		w.acknowledged(m, n.name)
	}
}

func (w *world) acknowledged(m *message, by string) {
	if m.poison {
		w.judge.refused(m.payload, by)
	}
	for _, n := range m.numbers {
		w.judge.released(n, by)
	}
}

// sendAgain sends what was turned away, or was not answered for a second.
func (w *world) sendAgain() {
	w.mu.Lock()
	var m *message
	if len(w.again) > 0 {
		i := w.rng.IntN(len(w.again))
		m = w.again[i]
		w.again = append(w.again[:i:i], w.again[i+1:]...)
	}
	w.mu.Unlock()
	if m == nil {
		if m = w.anyOpen(); m != nil && time.Since(m.sent) < time.Second {
			return
		}
	}
	if m != nil && !m.acked {
		w.send(m)
	}
}

// anyOpen is a message that was sent and is not acknowledged.
func (w *world) anyOpen() *message {
	w.mu.Lock()
	defer w.mu.Unlock()
	var oldest *message
	skip := 0
	if len(w.open) > 0 {
		skip = w.rng.IntN(len(w.open))
	}
	for m := range w.open { // by the order they were sent, or the seed would not decide
		if oldest == nil || m.sent.Before(oldest.sent) || m.sent.Equal(oldest.sent) && m.payload < oldest.payload {
			oldest = m
		}
	}
	if skip%2 == 0 {
		return oldest
	}
	return nil
}

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
	old := w.owner
	old.stale = true
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
	n := all[w.rng.IntN(len(all))]
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if a, err := n.host.StateHash(ctx, 0); err == nil && !n.crashed() {
			w.judge.looked(n.name, a.GetNextOffset(), a.GetStateHash())
		}
	}()
}

// learn tells stale nodes that they have lost the partition.
func (w *world) learn() {
	for _, n := range w.running() {
		if n.stale {
			n.alive()
		}
	}
}

func (w *world) fault() {
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

// rest ends all faults and waits until everything is acknowledged and known.
func (w *world) rest() {
	for i := range 4000 {
		for _, n := range w.running() {
			n.resume()
			n.fetchMore(1 << 20)
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
	if w.visit(); w.judge.verdict() != "" {
		return
	}
	for range 150 { // idle checks, held samples, effects
		time.Sleep(50 * time.Millisecond)
		w.drain()
		w.keepOwner()
		w.owner.fetchMore(1 << 20)
		synctest.Wait()
	}
	if !w.quietFor() {
		return
	}
	w.judge.final(w.devices, w.gaps)
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

// visit lets a node that thinks it was given the partition claim it, take the last messages and leave: the
// owner, with nothing to write, must notice by itself (T8).
func (w *world) visit() {
	guest := w.boot()
	guest.stale = true
	for range 1000 {
		guest.fetchMore(1 << 20)
		w.drain()
		w.keepOwner()
		synctest.Wait()
		waiting := 0
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
		waiting = len(w.open)
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
	for _, n := range w.all {
		n.crash()
	}
	for _, n := range w.all {
		if !n.done {
			<-n.ended
		}
	}
}
