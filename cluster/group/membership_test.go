package group

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// idle is a Group that does not run.
func idle(t *testing.T) *Group {
	t.Helper()
	g, err := New(Config{
		Connection: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")},
		Group:      "g", Topic: topic, Partitions: 4, Node: "a", Incarnation: 1, Capacity: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// An answer may have waited for this process to go on while the membership ran out.
func TestHeardCountsFromTheSending(t *testing.T) {
	g := idle(t)
	s := seat{member: "m", generation: 1}
	sent := time.Now().Add(-time.Hour)
	g.answered(s, sent, nil)
	if got := g.Heard(); !got.Equal(sent) {
		t.Errorf("got %v, want %v", got, sent)
	}
	g.answered(s, sent.Add(-time.Second), nil) // overtaken
	if got := g.Heard(); !got.Equal(sent) {
		t.Errorf("an older answer: got %v, want %v", got, sent)
	}
	g.answered(s, sent.Add(time.Second), kerr.RebalanceInProgress)
	if got, want := g.Heard(), sent.Add(time.Second); !got.Equal(want) {
		t.Errorf("in a rebalance: got %v, want %v", got, want)
	}
}

// What a heartbeat of the past is told does not unseat who has joined since.
func TestUnknownMember(t *testing.T) {
	g := idle(t)
	s := seat{member: "new", generation: 2}
	g.sit(s)
	g.answered(seat{member: "old", generation: 9}, time.Now(), kerr.UnknownMemberID)
	if got := g.current(); got != s {
		t.Errorf("got %+v, want %+v", got, s)
	}
	g.answered(s, time.Now(), kerr.UnknownMemberID)
	if got := g.current(); got != (seat{}) {
		t.Errorf("got %+v, want none", got)
	}
}

// Owned are first those partitions that a node has had longest.
func TestOwnedByAge(t *testing.T) {
	g := idle(t)
	self := []placement.Member{{ID: "a", Incarnation: 1}, {ID: "b", Incarnation: 1}}
	for i, c := range []struct {
		owners []int32
		want   []int32
	}{
		{[]int32{1, 1, 1, 0}, []int32{3}},
		{[]int32{0, 1, 0, 0}, []int32{3, 0, 2}},
		{[]int32{0, 0, 0, 0}, []int32{3, 0, 2, 1}},
		{[]int32{1, 0, 0, 0}, []int32{3, 2, 1}},
		{[]int32{0, 0, 0, 0}, []int32{3, 2, 1, 0}},
		{[]int32{1, 1, 1, 1}, nil},
	} {
		if got := g.own(&placement.Table{Generation: int64(i + 1), Members: self, Owners: c.owners}); got != len(c.want) {
			t.Errorf("table %d: owns %d, want %d", i, got, len(c.want))
		}
		_, m := g.enter()
		if diff := cmp.Diff(c.want, m.GetOwned()); diff != "" {
			t.Errorf("table %d (-want +got)\n%s", i, diff)
		}
	}
	// What a later run of this node is given is not this one's.
	self[0].Incarnation = 2
	if got := g.own(&placement.Table{Generation: 9, Members: self, Owners: []int32{0, 0, 0, 0}}); got != 0 {
		t.Errorf("of a later run: owns %d, want none", got)
	}
}

// A call that changes nothing costs no rebalance.
func TestSetCapacityToTheSame(t *testing.T) {
	g := idle(t)
	g.SetCapacity(1)
	if len(g.kick) != 0 {
		t.Error("it joins again for the capacity it has")
	}
	g.SetCapacity(2)
	if len(g.kick) != 1 {
		t.Error("it does not join again for another capacity")
	}
	if _, m := g.enter(); m.GetCapacity() != 2 || len(g.kick) != 0 {
		t.Errorf("got capacity %d, %d more joins, want 2 and none", m.GetCapacity(), len(g.kick))
	}
}

// An answer that was lost is asked for again, and brings the same table again.
func TestTableComesOnce(t *testing.T) {
	g := idle(t)
	var got []int64
	g.cfg.OnTable = func(t *placement.Table) { got = append(got, t.Generation) }
	for _, generation := range []int32{1, 1, 3, 2, 3, 4} {
		js := joined(t, &doppelv1.GroupMember{Node: "a", Incarnation: 1, Capacity: 1})
		pl := plan{topic: topic, partitions: 4, log: g.cfg.Logger}
		as, err := pl.assignments(generation, js)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.publish(as[0].MemberAssignment); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int64{1, 3, 4}, got); diff != "" {
		t.Errorf("generations (-want +got)\n%s", diff)
	}
	if err := g.publish(nil); err == nil {
		t.Error("an assignment without a table is taken")
	}
}
