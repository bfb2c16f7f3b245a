package router_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/remote"
	"github.com/doppel-iot/doppel/cluster/router"
)

// TestStorm drives three nodes through random faults of the network and of the partitions: losses,
// delays, doubled messages, silence, owners that move, stall, saturate, and give back. Every message
// must get exactly one verdict (verdicts panics otherwise), in bounded time, and what was released must
// be durable somewhere.
func TestStorm(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { storm(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// weather changes a network and its nodes at random.
type weather struct {
	*rand.Rand
	mu     sync.Mutex
	n      *network
	sites  []*site
	owners []string // by partition, what routers believe
}

var names = []string{"a", "b", "c"}

func storm(t *testing.T, seed uint64) {
	w := &weather{Rand: rand.New(rand.NewPCG(seed, 1)), n: newNetwork(t), owners: []string{"a", "b", "c", "b"}}
	for _, name := range names {
		w.sites = append(w.sites, newSite(t, w.n, name, func(p int32) router.Route {
			w.mu.Lock()
			defer w.mu.Unlock()
			return router.Route{Local: w.owners[p] == name, Address: w.owners[p]}
		}, func(c *router.Config) {
			c.PeerWindow, c.Window, c.VerdictWithin, c.Patience = 64, 32, 2*time.Second, 200*time.Millisecond
		}))
	}
	w.truth()
	v, token := newVerdicts(), 0
	for range 60 {
		w.change()
		for range 1 + w.IntN(5) {
			at := w.sites[w.IntN(len(w.sites))]
			batch := fleetFor(v, 1+w.IntN(40))
			for i := range batch {
				batch[i].Token, batch[i].Payload = uint64(token), fmt.Append(nil, token)
				token++
			}
			begin := time.Now()
			if err := at.router.Deliver(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("a Deliver took %v", took)
			}
		}
		time.Sleep(time.Duration(w.IntN(100)) * time.Millisecond)
	}
	for begin := time.Now(); v.settled() < token && time.Since(begin) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	w.check(t, v, token)
	w.calm()
	time.Sleep(10 * time.Second)
	last := newVerdicts()
	if err := w.sites[0].router.Deliver(t.Context(), fleetFor(last, 40)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if got := w.sites[0].router.Stats(); last.released() != 40 || got.Waiting() != 0 {
		t.Errorf("%d of 40 released after the storm, %d waiting", last.released(), got.Waiting())
	}
}

// check compares verdicts with what became of the messages.
func (w *weather) check(t *testing.T, v *verdicts, sent int) {
	t.Helper()
	durable := make(map[string]bool)
	for _, s := range w.sites {
		for _, payload := range slices.Concat(s.logged(), s.ingest.payloads()) {
			durable[payload] = true
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.got) != sent {
		t.Errorf("%d of %d messages have a verdict", len(v.got), sent)
	}
	for token, verdict := range v.got {
		if verdict == host.Released && !durable[strconv.FormatUint(token, 10)] {
			t.Errorf("message %d was released and is nowhere", token)
		}
	}
}

// truth makes the nodes serve what the routes say.
func (w *weather) truth() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.sites {
		var mine []int32
		for p, owner := range w.owners {
			if owner == names[i] {
				mine = append(mine, int32(p))
			}
		}
		s.serve(mine...)
	}
}

// change is one step of the storm.
func (w *weather) change() {
	s := w.sites[w.IntN(len(w.sites))]
	switch w.IntN(10) {
	case 0: // routes change before or after the owners do
		w.mu.Lock()
		w.owners[w.IntN(partitions)] = names[w.IntN(len(names))]
		w.mu.Unlock()
	case 1:
		w.truth()
		s.giveBack()
	case 2:
		s.change(func(o *plots) { o.err = []error{nil, host.ErrSaturated, host.ErrClosed}[w.IntN(3)] })
	case 3:
		s.change(func(o *plots) { o.full = !o.full })
	case 4:
		s.change(func(o *plots) { o.delay = time.Duration(w.IntN(400)) * time.Millisecond })
	case 5:
		w.n.silence(names[w.IntN(len(names))], w.IntN(2) == 0)
	case 6:
		w.n.set(nil)
	default:
		w.n.set(w.faults())
	}
}

// faults are those of one spell.
func (w *weather) faults() func(from, to, name string, m proto.Message) fate {
	bad, r := names[w.IntN(len(names))], rand.New(rand.NewPCG(w.Uint64(), 2))
	drop, twice, far := r.IntN(3) == 0, r.IntN(3) == 0, time.Duration(r.IntN(300))*time.Millisecond
	var err error
	switch r.IntN(6) {
	case 0:
		err = errors.New("down")
	case 1:
		err = remote.ErrFull
	}
	return func(from, to, name string, _ proto.Message) fate {
		if from != bad && to != bad || r.IntN(3) == 0 {
			return fate{}
		}
		return fate{err: err, drop: drop && strings.HasSuffix(name, "box"), twice: twice, delay: far}
	}
}

// giveBack is what an owner that loses its epoch does.
func (s *site) giveBack() { s.settle(s.holding(), host.NotOwner) }

func (w *weather) calm() {
	w.n.set(nil)
	for i, s := range w.sites {
		w.n.silence(names[i], false)
		s.change(func(o *plots) { o.err, o.full, o.delay = nil, false, 0 })
		s.ingest.settle(nil)
	}
	w.truth()
}
