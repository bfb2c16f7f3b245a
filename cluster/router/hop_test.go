package router_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/remote"
	"github.com/doppel-iot/doppel/cluster/router"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func newVerdicts() *verdicts { return &verdicts{got: make(map[uint64]host.Verdict)} }

// fleetFor are n messages of as many devices.
func fleetFor(v *verdicts, n int) []host.Message {
	msgs := make([]host.Message, n)
	for i := range msgs {
		msgs[i] = telemetry(v, uint64(i), fmt.Sprintf("dev-%d", i), strconv.Itoa(i))
	}
	return msgs
}

func (v *verdicts) settled() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.got)
}

func hopCounts(r *router.Router) map[string]uint64 {
	counts := make(map[string]uint64)
	r.Stats().Hops(func(end string, n uint64) {
		if n > 0 {
			counts[end] = n
		}
	})
	return counts
}

func isResponse(m proto.Message) bool {
	_, ok := m.(*doppelv1.DeliverResponse)
	return ok
}

// sayNo makes a node answer requests with nothing but v.
func sayNo(v doppelv1.DeliveryVerdict) func(*network, *site) {
	return func(n *network, b *site) {
		b.wire.Handle("router/inbox", func(from string, m proto.Message) {
			for range 2 { // the second time is once too often
				_ = b.wire.Tell(from, "router/outbox", &doppelv1.DeliverResponse{Id: m.(*doppelv1.DeliverRequest).GetId(), Verdict: v})
			}
		})
	}
}

// TestHop: what becomes of messages for another node, and how soon.
func TestHop(t *testing.T) {
	lose := func(what func(m proto.Message) bool, err error) func(*network, *site) {
		return func(n *network, _ *site) {
			n.set(func(_, _, _ string, m proto.Message) fate { return fate{drop: what(m), err: err} })
		}
	}
	all := func(proto.Message) bool { return true }
	for name, tt := range map[string]struct {
		fault  func(*network, *site)
		slow   string // the reason; empty: by the fast path
		hop    string
		within time.Duration
	}{
		"released": {func(*network, *site) {}, "", "released", 50 * time.Millisecond},
		"far away": {func(n *network, _ *site) {
			n.set(func(_, _, _ string, _ proto.Message) fate { return fate{delay: 100 * time.Millisecond} })
		}, "", "released", 300 * time.Millisecond},
		"said twice": {func(n *network, _ *site) {
			n.set(func(_, _, _ string, m proto.Message) fate { return fate{twice: isResponse(m)} })
		}, "", "released", 50 * time.Millisecond},
		"slow log":          {func(_ *network, b *site) { b.delay = 3 * time.Second }, "", "released", 3100 * time.Millisecond},
		"log that is stuck": {func(_ *network, b *site) { b.keep = true }, "saturated", "unanswered", 10100 * time.Millisecond},
		"not the owner":     {func(_ *network, b *site) { b.serve() }, "moving", "not_owner", 50 * time.Millisecond},
		"saturated":         {func(_ *network, b *site) { b.err = host.ErrSaturated }, "saturated", "busy", 50 * time.Millisecond},
		"full":              {func(_ *network, b *site) { b.full = true }, "saturated", "busy", 150 * time.Millisecond},
		"failed":            {sayNo(doppelv1.DeliveryVerdict_DELIVERY_VERDICT_FAILED), "saturated", "failed", 50 * time.Millisecond},
		"newer verdict":     {sayNo(doppelv1.DeliveryVerdict(77)), "saturated", "failed", 50 * time.Millisecond},
		"not sent":          {lose(all, errors.New("no connection")), "down", "unanswered", 10 * time.Millisecond},
		"wire is full":      {lose(all, fmt.Errorf("tell: %w", remote.ErrFull)), "saturated", "unanswered", 10 * time.Millisecond},
		"lost":              {lose(all, nil), "saturated", "unanswered", 1030 * time.Millisecond},
		"verdict lost": {lose(func(m proto.Message) bool {
			return isResponse(m) && m.(*doppelv1.DeliverResponse).GetVerdict() == doppelv1.DeliveryVerdict_DELIVERY_VERDICT_RELEASED
		}, nil), "moving", "not_owner", 540 * time.Millisecond},
		"verdict lost, then asked for": {func(n *network, b *site) {
			b.delay = 100 * time.Millisecond
			lose(func(m proto.Message) bool {
				return isResponse(m) && m.(*doppelv1.DeliverResponse).GetVerdict() == doppelv1.DeliveryVerdict_DELIVERY_VERDICT_RELEASED
			}, nil)(n, b)
		}, "moving", "not_owner", 600 * time.Millisecond},
		"dead": {func(n *network, b *site) { lose(all, nil)(n, b); n.silence("b", true) }, "down", "unanswered", 730 * time.Millisecond},
		"stalls in the middle": {func(n *network, b *site) {
			b.keep = true
			time.AfterFunc(100*time.Millisecond, func() { lose(all, nil)(n, b); n.silence("b", true) })
		}, "down", "unanswered", 850 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, b := twoSites(t)
				tt.fault(n, b)
				time.Sleep(time.Millisecond)
				v := newVerdicts()
				begin := time.Now()
				if err := a.router.Deliver(t.Context(), numbered(v, 1, 3)); err != nil {
					t.Fatal(err)
				}
				for v.settled() < 3 && time.Since(begin) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(begin); v.released() != 3 || took > tt.within {
					t.Errorf("after %v: %v, want 3 released within %v", took, v.got, tt.within)
				}
				time.Sleep(time.Second) // for what comes late
				logged, slow := []string{"1", "2", "3"}, map[string]uint64{}
				if tt.slow != "" {
					slow[tt.slow] = 3
					if got := a.ingest.payloads(); !slices.Equal(got, logged) {
						t.Errorf("by the slow path %v, want %v", got, logged)
					}
				} else if got := b.logged(); !slices.Equal(got, logged) {
					t.Errorf("the owner released %v, want %v", got, logged)
				}
				if diff := cmp.Diff(slow, slowCounts(a.router)); diff != "" {
					t.Errorf("slow path (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(map[string]uint64{tt.hop: 3}, hopCounts(a.router)); diff != "" {
					t.Errorf("hops (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestHopKeepsEverything: a message arrives as it left.
func TestHopKeepsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoSites(t)
		b.keep = true
		v := newVerdicts()
		sent := []host.Message{
			{Kind: host.Telemetry, Device: []byte("d"), Payload: []byte("{}"), ContentType: "application/json", ReceivedAt: 1 << 60, Topic: "devices"},
			{Kind: host.Status, Device: []byte("d"), Payload: []byte{}, ReceivedAt: 5, Topic: "root"},
			{Kind: host.Reported, Attempts: 255, Numbered: true, Boot: 1 << 63, Seq: 0, Device: []byte("d"), Payload: []byte{0, 255}, ReceivedAt: -1},
		}
		for i := range sent {
			sent[i].Token, sent[i].Reply = uint64(i), v
		}
		if err := a.router.Deliver(t.Context(), slices.Clone(sent)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		var got []host.Message
		for _, m := range b.holding() {
			got = append(got, *m)
		}
		b.settle(b.holding(), host.Released)
		time.Sleep(10 * time.Millisecond)
		if v.released() != 3 {
			t.Errorf("verdicts %v, want 3 released", v.got)
		}
		if diff := cmp.Diff(sent, got, cmpopts.IgnoreFields(host.Message{}, "Token", "Reply"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("messages (-sent +got):\n%s", diff)
		}
		if a.router.Stats().Forwarded() != 3 || b.router.Stats().Received() != 3 || a.router.Stats().Late() != 0 {
			t.Errorf("%d forwarded, %d received, %d late, want 3, 3, 0", a.router.Stats().Forwarded(), b.router.Stats().Received(), a.router.Stats().Late())
		}
	})
}

// TestNoSecondHop: what comes from another node is never sent on, wherever the partition is said to be.
func TestNoSecondHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newSite(t, n, "a", func(int32) router.Route { return router.Route{Address: "b"} }, nil)
		b := newSite(t, n, "b", func(int32) router.Route { return router.Route{Address: "c"} }, nil)
		c := newSite(t, n, "c", func(int32) router.Route { return router.Route{Local: true} }, nil)
		c.serve(0, 1, 2, 3)
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), numbered(v, 1, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if v.released() != 10 || slowCounts(a.router)["moving"] != 10 || b.router.Stats().Forwarded() != 0 || len(c.logged()) != 0 {
			t.Errorf("%d released, slow path %v, %d sent on, %d at c", v.released(), slowCounts(a.router), b.router.Stats().Forwarded(), len(c.logged()))
		}
	})
}

// TestUnknownOwner: a partition that nobody is known to serve has the slow path.
func TestUnknownOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newSite(t, n, "a", func(int32) router.Route { return router.Route{} }, nil)
		v := newVerdicts()
		if err := a.router.Deliver(t.Context(), fleetFor(v, 40)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v.released() != 40 || slowCounts(a.router)["unknown_owner"] != 40 {
			t.Errorf("%d released, slow path %v", v.released(), slowCounts(a.router))
		}
	})
}
