package router_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/router"
)

// threeSites are a, which serves partitions 0 and 1, b with 2 and c with 3.
func threeSites(t *testing.T, change func(*router.Config)) (n *network, a, b, c *site) {
	t.Helper()
	n = newNetwork(t)
	owners := []string{"a", "a", "b", "c"}
	at := func(address string) *site {
		s := newSite(t, n, address, func(p int32) router.Route {
			return router.Route{Local: owners[p] == address, Address: owners[p]}
		}, change)
		var mine []int32
		for p, owner := range owners {
			if owner == address {
				mine = append(mine, int32(p))
			}
		}
		s.serve(mine...)
		return s
	}
	return n, at("a"), at("b"), at("c")
}

// TestStalledNode: a node that takes everything and answers nothing delays the messages for no other,
// however many there are for it; and it gets messages again when it is back.
func TestStalledNode(t *testing.T) {
	for name, silent := range map[string]bool{"dead": true, "heard of": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, b, c := threeSites(t, func(cfg *router.Config) { cfg.PeerWindow = 64 })
				time.Sleep(time.Millisecond)
				n.set(func(from, to, _ string, _ proto.Message) fate { return fate{drop: from == "b" || to == "b"} })
				n.silence("b", silent)
				begin, worst, slowest := time.Now(), time.Duration(0), time.Duration(0)
				var others []*verdicts
				for range 200 { // messages for all of them, for two seconds and more
					v := newVerdicts()
					delivered := time.Now()
					if err := a.router.Deliver(t.Context(), fleetFor(v, 64)); err != nil {
						t.Fatal(err)
					}
					worst = max(worst, time.Since(delivered))
					for v.settled() < 64 && time.Since(delivered) < 10*time.Millisecond {
						time.Sleep(time.Millisecond)
					}
					if time.Since(begin) > time.Second {
						slowest = max(slowest, time.Since(delivered))
					}
					others = append(others, v)
				}
				time.Sleep(time.Second)
				for _, v := range others {
					if v.released() != 64 {
						t.Fatalf("%d of 64 released", v.released())
					}
				}
				if worst > 100*time.Millisecond {
					t.Errorf("a Deliver took %v", worst)
				}
				if counts := slowCounts(a.router); counts["down"]+counts["saturated"] != uint64(len(a.ingest.payloads())) {
					t.Errorf("slow path %v", counts)
				}
				if len(a.ingest.payloads())+len(a.logged())+len(c.logged()) != 200*64 || len(b.logged()) != 0 {
					t.Errorf("%d by the slow path, %d by a, %d by b, %d by c", len(a.ingest.payloads()), len(a.logged()), len(b.logged()), len(c.logged()))
				}
				n.silence("b", false)
				n.set(nil)
				time.Sleep(5 * time.Second)
				v, before := newVerdicts(), len(a.ingest.payloads())
				if err := a.router.Deliver(t.Context(), fleetFor(v, 64)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				if v.released() != 64 || len(a.ingest.payloads()) != before || len(b.logged()) == 0 {
					t.Errorf("%d released, %d by the slow path after it is back", v.released(), len(a.ingest.payloads())-before)
				}
			})
		})
	}
}

// TestSafeInTime: whatever the other node does, a message is safe within a second, also behind a full
// window.
func TestSafeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := twoSitesWith(t, func(cfg *router.Config) { cfg.PeerWindow = 16 })
		b.keep = true // all of the window is accepted, and then nothing
		first := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(first, 1, 16)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		n.set(func(_, to, _ string, _ proto.Message) fate { return fate{drop: to == "b"} })
		begin := time.Now()
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 100, 1)); err != nil {
			t.Fatal(err)
		}
		waited := time.Since(begin)
		for v.settled() < 1 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took > 110*time.Millisecond || slowCounts(a.router)["saturated"] != 1 {
			t.Errorf("safe after %v, slow path %v", took, slowCounts(a.router))
		}
		// Nobody waits for that window again.
		begin = time.Now()
		if err := a.router.Deliver(t.Context(), numbered(v, 101, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); waited < 90*time.Millisecond || took > 0 {
			t.Errorf("the first waited %v, the second %v", waited, took)
		}
		// The window opens while one waits, the request is lost: both waits together.
		b.settle(b.holding(), host.Released)
		time.Sleep(time.Second)
		n.set(nil)
		more := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(more, 200, 16)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		time.AfterFunc(90*time.Millisecond, func() {
			n.set(func(_, to, _ string, _ proto.Message) fate { return fate{drop: to == "b"} })
			b.settle(b.holding(), host.Released)
		})
		begin = time.Now()
		if err := a.router.Deliver(t.Context(), numbered(more, 300, 1)); err != nil {
			t.Fatal(err)
		}
		for more.settled() < 17 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took > 1030*time.Millisecond {
			t.Errorf("safe after %v", took)
		}
	})
}

// TestOrderBehindSlowPath: messages for another node wait for those on the slow path, but not long.
func TestOrderBehindSlowPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSites(t)
		a.ingest.auto.Store(false)
		b.serve()
		v := newVerdicts()
		deliver := func(token int) time.Duration {
			begin := time.Now()
			if err := a.router.Deliver(t.Context(), numbered(v, token, 1)); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		deliver(1)
		time.Sleep(100 * time.Millisecond) // 1 is with doppel.ingest
		b.serve(0, 1, 2, 3)
		time.AfterFunc(30*time.Millisecond, func() { a.ingest.settle(nil) })
		if took := deliver(2); took != 30*time.Millisecond {
			t.Errorf("2 waited %v for 1, want 30ms", took)
		}
		time.Sleep(100 * time.Millisecond)
		b.serve()
		deliver(3)
		time.Sleep(100 * time.Millisecond)
		b.serve(0, 1, 2, 3)
		if took := deliver(4); took != 100*time.Millisecond {
			t.Errorf("4 waited %v for 3, which hangs, want 100ms", took)
		}
		if took := deliver(5); took != 0 {
			t.Errorf("5 waited %v for 3, in vain once already", took)
		}
		time.Sleep(100 * time.Millisecond)
		a.ingest.settle(nil)
		time.Sleep(100 * time.Millisecond)
		if v.released() != 5 || len(b.logged()) != 3 {
			t.Errorf("%d released, by the owner %v", v.released(), b.logged())
		}
	})
}

// TestNowhere: when the slow path takes nothing either, messages go back to their door.
func TestNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSitesWith(t, func(cfg *router.Config) { cfg.Window = 4 })
		a.ingest.auto.Store(false)
		b.serve()
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 1, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		if got := v.settled(); got != 6 || v.released() != 0 {
			t.Errorf("%d back at the door and %d released, want 6 and 0", got, v.released())
		}
		begin := time.Now()
		if err := a.router.Deliver(t.Context(), numbered(v, 20, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took == 0 {
			t.Error("a full slow path did not hold the door back")
		}
		time.Sleep(100 * time.Millisecond)
		a.ingest.settle(errors.New("away"))
		time.Sleep(time.Second)
		if got := v.settled(); got != 11 || v.released() != 0 {
			t.Errorf("%d settled and %d released, want 11 and 0", got, v.released())
		}
	})
}

// TestClose gives back what is on the way, and takes nothing more.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSites(t)
		b.keep = true
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 1, 3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		a.router.Close()
		a.router.Close()
		if v.settled() != 3 || v.released() != 0 {
			t.Errorf("verdicts %v, want 3 to deliver again", v.got)
		}
		b.settle(b.holding(), host.Released)
		b.router.Close()
		time.Sleep(time.Second)
		if err := a.router.Deliver(t.Context(), numbered(v, 10, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if len(a.ingest.payloads()) != 1 || v.released() != 1 {
			t.Errorf("after Close %v by the slow path, verdicts %v", a.ingest.payloads(), v.got)
		}
	})
}

// TestLaneIsBounded: an owner that takes nothing makes the other node keep only so much for it; the
// rest is refused at once, and nothing is released that is nowhere.
func TestLaneIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSitesWith(t, func(cfg *router.Config) { cfg.Window = 4096 })
		b.full = true
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 1, 3000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		early := v.released()
		time.Sleep(time.Second)
		if got := len(a.ingest.payloads()); early == 0 || early == 3000 || v.released() != 3000 || got != 3000 {
			t.Errorf("%d refused at once, %d released in the end, %d by the slow path", early, v.released(), got)
		}
	})
}

// TestNewIncarnation: verdicts for messages that a node sent in an earlier life are not taken for
// those of this one.
func TestNewIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := twoSites(t)
		b.keep = true
		before, now := newVerdicts(), newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(before, 1, 3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond) // they are said to be accepted
		old := b.holding()
		a.router.Close()
		a = newSite(t, n, "a", func(int32) router.Route { return router.Route{Address: "b"} }, nil)
		if err := a.router.Deliver(t.Context(), numbered(now, 10, 3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		b.settle(old, host.Released)
		time.Sleep(50 * time.Millisecond)
		if before.released() != 0 || now.settled() != 0 || a.router.Stats().Late() != 3 {
			t.Errorf("verdicts %v and %v, %d late, want none, none and 3", before.got, now.got, a.router.Stats().Late())
		}
	})
}

// TestForget drops a node; it may come back.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSites(t)
		b.keep = true
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 1, 3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		a.router.Forget("b")
		b.router.Forget("a")
		if v.settled() != 3 || v.released() != 0 {
			t.Errorf("verdicts %v, want 3 to deliver again", v.got)
		}
		b.settle(b.holding(), host.Released)
		b.change(func(o *plots) { o.keep = false })
		again := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(again, 10, 3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if again.released() != 3 || len(a.ingest.payloads()) != 0 {
			t.Errorf("verdicts %v, by the slow path %v", again.got, a.ingest.payloads())
		}
	})
}
