package query_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// watch is a stream of events that a test takes one by one.
type watch[M any] struct {
	t    *testing.T
	msgs chan M
	err  chan error
	stop func()
}

func follow[M any](t *testing.T, open func(context.Context) (grpc.ServerStreamingClient[M], error)) *watch[*M] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch[*M]{t: t, msgs: make(chan *M, 10_000), err: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.Recv()
			if err != nil {
				w.err <- err
				return
			}
			w.msgs <- m
		}
	}()
	w.stop = func() { cancel(); <-done }
	t.Cleanup(w.stop)
	return w
}

func (w *watch[M]) next() M {
	w.t.Helper()
	select {
	case m := <-w.msgs:
		return m
	case err := <-w.err:
		w.t.Fatalf("watch ended: %v", err)
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing came")
	}
	panic("unreachable")
}

func (n *node) watchTwins(req *doppelv1.WatchTwinsRequest) *watch[*doppelv1.WatchTwinsResponse] {
	n.w.t.Helper()
	return follow(n.w.t, func(ctx context.Context) (grpc.ServerStreamingClient[doppelv1.WatchTwinsResponse], error) {
		return n.twins.WatchTwins(ctx, req)
	})
}

func (n *node) watchAlerts(req *doppelv1.WatchAlertsRequest) *watch[*doppelv1.WatchAlertsResponse] {
	n.w.t.Helper()
	return follow(n.w.t, func(ctx context.Context) (grpc.ServerStreamingClient[doppelv1.WatchAlertsResponse], error) {
		return n.alerts.WatchAlerts(ctx, req)
	})
}

// snapshot reads up to its end, and returns how many twins it has.
func snapshot(s *watch[*doppelv1.WatchTwinsResponse]) (n int) {
	s.t.Helper()
	for {
		switch m := s.next(); {
		case m.GetSnapshot() != nil:
			n++
		case m.GetSnapshotDone() != nil:
			return n
		case m.GetHeartbeat() == nil:
			s.t.Fatalf("in the snapshot: %v", m)
		}
	}
}

// until reads changes until a twin is as far as a number.
func until(s *watch[*doppelv1.WatchTwinsResponse], id string, seq uint64) {
	s.t.Helper()
	for {
		switch m := s.next(); {
		case m.GetGap() != nil:
			s.t.Fatalf("a gap: %s", m.GetGap().GetReason())
		case m.GetChanged().GetId() == id && m.GetChanged().GetSeq() >= seq, m.GetSnapshot().GetId() == id && m.GetSnapshot().GetSeq() >= seq:
			return
		}
	}
}

// TestTwinsOfAllNodesAreWatched: what changes at one node is seen at another, also behind a move.
func TestTwinsOfAllNodesAreWatched(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.devices(20)
	all := w.nodes[0].watchTwins(&doppelv1.WatchTwinsRequest{})
	one := w.nodes[2].watchTwins(&doppelv1.WatchTwinsRequest{Ids: []string{"dev-03"}})
	if n := snapshot(all); n != 20 {
		t.Errorf("snapshot of %d twins, want 20", n)
	}
	if n := snapshot(one); n != 1 {
		t.Errorf("snapshot of %d twins, want 1", n)
	}
	for seq := 2; seq < 12; seq++ {
		for _, id := range []string{"dev-03", "dev-04", "dev-05", "dev-06"} {
			w.sample(id, seq)
		}
		until(all, "dev-06", uint64(seq))
		until(one, "dev-03", uint64(seq))
		w.move(int32(seq%partitions), seq%3)
	}
	w.send("fresh", host.Telemetry, `{"boot":1,"seq":1,"metrics":{"x":1}}`)
	until(all, "fresh", 1)
}

// TestTokenOfAnotherNode: twins have no place that two nodes know, so there is a gap and all of them.
func TestTokenOfAnotherNode(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.devices(8)
	s := w.nodes[0].watchTwins(&doppelv1.WatchTwinsRequest{})
	snapshot(s)
	w.sample("dev-01", 2)
	token := s.next().GetResumeToken()
	s.stop()
	s = w.nodes[1].watchTwins(&doppelv1.WatchTwinsRequest{ResumeToken: token})
	if m := s.next(); m.GetGap().GetReason() == "" {
		t.Fatalf("got %v, want a gap", m)
	}
	if n := snapshot(s); n != 8 {
		t.Errorf("snapshot of %d twins, want 8", n)
	}
	w.sample("dev-01", 3)
	until(s, "dev-01", 3)
}

// TestNodeThatJoinsIsWatched: a node that came later and serves nothing yet is no gap.
func TestNodeThatJoinsIsWatched(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.devices(8)
	s := w.nodes[0].watchTwins(&doppelv1.WatchTwinsRequest{})
	snapshot(s)
	late := w.add(nil)
	eventually(t, "the new node is followed", late.hub.TwinsWatched)
	for p := range int32(partitions) {
		w.move(p, late.index)
	}
	w.sample("dev-01", 2)
	until(s, "dev-01", 2)
}

// TestNodeThatDies: changes that a dead node did not tell are made up for by a gap and a snapshot, which
// waits for the partitions; the watch goes on.
func TestNodeThatDies(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.devices(12)
	s := w.nodes[0].watchTwins(&doppelv1.WatchTwinsRequest{})
	snapshot(s)
	dead := w.nodes[1]
	id := w.on(dead, "last")
	w.sample(id, 1)
	until(s, id, 1)
	dead.peers.Stop()
	w.sample(id, 2) // nobody is told
	for m := s.next(); m.GetGap() == nil; m = s.next() {
		if m.GetHeartbeat() == nil {
			t.Fatalf("got %v, want a gap", m)
		}
	}
	for p := range int32(partitions) {
		if w.target(p) == dead.id {
			dead.host.Drop(p)
			w.take(p, 2)
		}
	}
	w.mu.Lock()
	w.gone[dead.index] = true
	w.mu.Unlock()
	until(s, id, 2)
	w.sample(id, 3)
	until(s, id, 3)
}

// TestAlertsAcrossNodes: a subscriber who goes from node to node with its token sees each transition
// once and in order, whether the ring of the node still has it or not.
func TestAlertsAcrossNodes(t *testing.T) {
	w := newWorld(t, 3, func(c *api.HubConfig) { c.Transitions = 8 })
	const total = 300
	said := w.nodes[0].client.AlertLog()
	written := make(chan error, 2*total)
	device := func(i int) string { return fmt.Sprintf("dev-%d", i%5) }
	tell := func(i int) {
		w.t.Helper()
		id := device(i)
		p := w.partition(id)
		tr := host.Transition{Partition: p, Offset: int64(100 + i), Device: id, Alert: alert.Alert{ID: uint64(i + 1), State: alert.Firing, Severity: alert.Critical, FireTime: 1}}
		said.Publish(t.Context(), tr, func(err error) { written <- err })
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	s := w.nodes[0].watchAlerts(&doppelv1.WatchAlertsRequest{})
	token := s.next().GetResumeToken()
	const some = 25
	for first := 0; first < total; first += some {
		if first%2 == 1 { // nobody listens for longer than the ring keeps
			s.stop()
		}
		for i := first; i < first+some; i++ {
			tell(i)
			if i%10 == 3 { // a node that is late to learn of its successor tells an older one
				tell(i - 2)
			}
		}
		if first%2 == 1 {
			s = w.nodes[(first/some)%3].watchAlerts(&doppelv1.WatchAlertsRequest{ResumeToken: token})
		}
		behind := make(map[string]int) // partitions come as they come, each in order
		for range some {
			m := s.next()
			a := m.GetTransition()
			var n int
			if _, err := fmt.Sscanf(a.GetId(), "%x", &n); err != nil {
				t.Fatalf("got %v, want a transition", m)
			}
			if n--; n < first || n >= first+some || device(n) != a.GetDevice() || behind[a.GetDevice()] > n {
				t.Fatalf("transition %d of %s: want one of %d and the 24 behind it, in order", n, a.GetDevice(), first)
			}
			behind[a.GetDevice()] = n + 1
			token = m.GetResumeToken()
		}
	}
}

// TestAlertsOfARestartedNode: the token of an alert watch outlives the node that gave it.
func TestAlertsOfARestartedNode(t *testing.T) {
	w := newWorld(t, 2, nil)
	id := w.on(w.nodes[1], "leaves")
	s := w.nodes[0].watchAlerts(&doppelv1.WatchAlertsRequest{})
	token := s.next().GetResumeToken()
	s.stop()
	w.send(id, host.Status, `{"online":true,"boot":1,"session":1}`)
	w.send(id, host.Status, `{"online":false,"boot":1,"session":1}`)
	w.send(id, host.Status, `{"online":true,"boot":1,"session":2}`)
	for p := range int32(partitions) {
		w.move(p, 0) // the new owner tells again what it does not know to be told
	}
	late := w.add(nil)
	s = late.watchAlerts(&doppelv1.WatchAlertsRequest{ResumeToken: token})
	for _, want := range []doppelv1.AlertState{doppelv1.AlertState_FIRING, doppelv1.AlertState_RESOLVED} {
		if m := s.next(); m.GetTransition().GetState() != want || m.GetTransition().GetDevice() != id {
			t.Errorf("got %v, want %v", m, want)
		}
	}
	w.send(id, host.Status, `{"online":false,"boot":1,"session":2}`)
	if m := s.next(); m.GetTransition().GetState() != doppelv1.AlertState_FIRING {
		t.Errorf("got %v, want the next one", m)
	}
}
