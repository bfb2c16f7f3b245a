package query_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/query"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestStatusOfAllNodes: every node shows the same nodes and partitions, what moves, and who is away.
func TestStatusOfAllNodes(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.devices(20)
	eventually(t, "all twins are counted", func() bool { // a partition shows them at the end of a turn
		s, err := w.nodes[0].fleet.Status(t.Context())
		return err == nil && s.GetTwins() == 20
	})
	for _, n := range w.nodes {
		s, err := n.fleet.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.GetTwins() != 20 || s.GetSamplesPerSecond() != 30 || len(s.GetNodes()) != 3 || len(s.GetPartitions()) != partitions {
			t.Errorf("%s: %v", n.id, s)
		}
		for i, node := range s.GetNodes() {
			if node.GetId() != w.nodes[i].id || node.GetState() != "serving" || node.GetPartitions() == 0 {
				t.Errorf("%s: node %d: %v", n.id, i, node)
			}
		}
		for i, p := range s.GetPartitions() {
			if p.GetId() != int32(i) || p.GetOwner() != w.target(int32(i)) || p.GetMovingTo() != "" || p.GetState() != string(host.Serving) {
				t.Errorf("%s: partition %d: %v", n.id, i, p)
			}
		}
	}
	if twins, _, _ := w.nodes[0].reader.Count(); twins != 20 {
		t.Errorf("count: %d twins, want 20", twins)
	}

	// A partition that is to be n2's while n1 serves it, and one that nobody serves.
	w.mu.Lock()
	w.owners[1] = 2
	w.mu.Unlock()
	if err := w.nodes[0].host.Release(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s, err := w.nodes[2].fleet.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := s.GetPartitions()[1]; p.GetOwner() != "n1" || p.GetMovingTo() != "n2" {
		t.Errorf("a partition that moves: %v", p)
	}
	if p := s.GetPartitions()[0]; p.GetOwner() != "" || p.GetMovingTo() != "n0" {
		t.Errorf("a partition of nobody: %v", p)
	}

	w.nodes[1].peers.Stop()
	s, err = w.nodes[0].fleet.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := s.GetNodes()[1]; n.GetState() != query.Unreachable || n.GetVersion() != "v1" || n.GetAddress() == "" {
		t.Errorf("a node that is away: %v", n)
	}
}

// TestAuditOfAllNodes adds the accounts up, counts each partition once, and names what is wrong.
func TestAuditOfAllNodes(t *testing.T) {
	w := newWorld(t, 3, nil)
	for _, id := range w.devices(20) {
		w.sample(id, 2)
	}
	w.send("dev-03", host.Telemetry, `{broken`)
	for _, n := range w.nodes {
		for _, deep := range []bool{false, true} {
			a, err := n.fleet.Audit(t.Context(), deep)
			if err != nil {
				t.Fatal(err)
			}
			if !a.GetBalanced() || a.GetReceived() != 41 || a.GetTotals().GetApplied() != 40 || a.GetTwins().GetApplied() != 40 || len(a.GetPartitions()) != partitions {
				t.Errorf("%s: %v", n.id, a)
			}
			for i, p := range a.GetPartitions() {
				if p.GetId() != int32(i) || p.GetNextOffset() == 0 {
					t.Errorf("%s: partition %d: %v", n.id, i, p)
				}
			}
			if l := a.GetLog(); deep && (l.GetRefused() != 1 || l.GetDeadLetters() != 1 || l.GetRecords() < 41 || !l.GetWhole()) || !deep && l != nil {
				t.Errorf("%s: log: %v", n.id, l)
			}
		}
	}
	tests := map[string]struct {
		find func(*doppelv1.Audit)
		want string
	}{
		"its own": {func(a *doppelv1.Audit) { a.Balanced, a.Difference = false, "7 samples too many" }, "node n1: 7 samples too many"},
		"twice": {func(a *doppelv1.Audit) {
			a.Partitions = append(a.Partitions, &doppelv1.PartitionAudit{Id: 0})
		}, "partition 0 is served by n0 and n1"},
		"letters": {func(a *doppelv1.Audit) { a.Log.Refused = 5 }, "doppel.dlq: 1 letters, and "},
	}
	for name, tt := range tests {
		w.nodes[1].part.mu.Lock()
		w.nodes[1].part.audit = tt.find
		w.nodes[1].part.mu.Unlock()
		if a, err := w.nodes[0].fleet.Audit(t.Context(), true); err != nil || a.GetBalanced() || !strings.HasPrefix(a.GetDifference(), tt.want) {
			t.Errorf("%s: %q, %v; want %q", name, a.GetDifference(), err, tt.want)
		}
	}
	w.nodes[1].part.mu.Lock()
	w.nodes[1].part.audit = nil
	w.nodes[1].part.mu.Unlock()

	if err := w.nodes[2].host.Release(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if _, err := w.nodes[0].fleet.Audit(t.Context(), false); !errors.Is(err, host.ErrUnavailable) || !strings.Contains(err.Error(), "partition 2") {
		t.Errorf("a partition of nobody: %v", err)
	}
	w.take(2, 2)
	w.nodes[1].peers.Stop()
	if a, err := w.nodes[0].fleet.Audit(t.Context(), false); err != nil || a.GetBalanced() || !strings.HasPrefix(a.GetDifference(), "node n1 could not be asked: ") {
		t.Errorf("a node that is away: %v, %v", a, err)
	}
}

// TestDrainReachesItsNode from any other.
func TestDrainReachesItsNode(t *testing.T) {
	w := newWorld(t, 3, nil)
	for _, undo := range []bool{false, true} {
		for _, from := range w.nodes {
			for _, n := range w.nodes {
				n.part.drained = undo
			}
			got, err := from.fleet.Drain(t.Context(), "n2", undo)
			if err != nil || got.GetId() != "n2" {
				t.Errorf("from %s: %v, %v", from.id, got, err)
			}
			for i, n := range w.nodes {
				if want := undo != (i == 2); n.part.drained != want {
					t.Errorf("from %s, undo %v: drained at %s: %v", from.id, undo, n.id, n.part.drained)
				}
			}
		}
	}
	if _, err := w.nodes[0].fleet.Drain(t.Context(), "n9", false); status.Code(err) != codes.NotFound {
		t.Errorf("no such node: %v", err)
	}
	w.nodes[2].peers.Stop()
	if _, err := w.nodes[0].fleet.Drain(t.Context(), "n2", false); status.Code(err) != codes.Unavailable {
		t.Errorf("a node that is away: %v", err)
	}
}
