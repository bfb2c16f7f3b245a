package rules

import (
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
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
	heir               *node   // reads ahead; nil: nobody does
	warmed             atomic.Int64
	strays             []stray
	panics             atomic.Int64 // steps of dev-3 until one panics; 0: none does
	tardyOnly          bool         // every move is a claim of one who then stands still
	stateFails         bool         // every fault is a checkpoint or floor that is not taken
	revenge            *node        // was paused, and what it sent to doppel.state meanwhile is about to land
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
var quick, slow = pace{30, 800, time.Second, 15 * time.Second}, pace{150, 3000, 12 * time.Second, 90 * time.Second}

// tally counts what happened in some worlds, to see that the faults meet something.
type tally struct{ warmed, taken, worlds, records, void, boots, letters, ingested, gaps, forced, transitions, state, cut, late int }

func (c *tally) add(w *world) {
	j := w.judge
	c.worlds++
	c.warmed += int(w.warmed.Load())
	for _, n := range w.all {
		c.taken += int(n.host.Stats().Warm.Load())
	}
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

func newWorld(seed uint64, broken breaks, trace io.Writer) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 4)), broken: broken, trace: trace, rules: rulesOf(), gaps: seed%3 == 0, pace: quick,
		log: newTopic(), state: newTopic(), ingest: newTopic(),
		tries: map[uint64]*message{}, open: map[*message]bool{},
	}
	w.limits = twin.Limits{Hold: time.Hour, Held: 1024}
	if w.gaps {
		w.limits = twin.SettledLimits()
	}
	if seed%4 == 1 {
		w.pace = slow
	}
	if seed%5 == 0 {
		w.panics.Store(1 + w.rng.Int64N(60))
	}
	w.judge = newJudge(w.rules)
	return w
}

// play runs one world and returns what was wrong with it; empty: nothing.
func play(t *testing.T, seed uint64, broken breaks, trace io.Writer, sum *tally) (found string) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := newWorld(seed, broken, trace)
		w.tally = sum
		w.devices = newDevices(w.rng, 4, 30)
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
	case p < 312:
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
	case p < 978:
		w.warm()
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
