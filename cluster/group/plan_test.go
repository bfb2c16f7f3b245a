package group

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// joined is who takes part in a generation, as the leader is told.
func joined(t *testing.T, ms ...*doppelv1.GroupMember) []kmsg.JoinGroupResponseMember {
	t.Helper()
	var js []kmsg.JoinGroupResponseMember
	for i, m := range ms {
		md, err := subscription(topic, m)
		if err != nil {
			t.Fatal(err)
		}
		js = append(js, kmsg.JoinGroupResponseMember{MemberID: string(rune('0' + i)), ProtocolMetadata: md})
	}
	return js
}

// agreed is the one table that all members are given, and the doubled nodes with it.
func agreed(t *testing.T, generation int32, js []kmsg.JoinGroupResponseMember) (*placement.Table, []string) {
	t.Helper()
	pl := plan{topic: topic, partitions: 4, log: slog.New(slog.DiscardHandler)}
	as, err := pl.assignments(generation, js)
	if err != nil {
		t.Fatal(err)
	}
	if len(as) != len(js) {
		t.Fatalf("got %d assignments for %d members", len(as), len(js))
	}
	table, doubled, err := readAssignment(as[0].MemberAssignment)
	if err != nil {
		t.Fatal(err)
	}
	for i := range as {
		if as[i].MemberID != js[i].MemberID {
			t.Errorf("assignment %d is for %q, want %q", i, as[i].MemberID, js[i].MemberID)
		}
		other, _, err := readAssignment(as[i].MemberAssignment)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, other); diff != "" {
			t.Errorf("table of member %d (-first +this)\n%s", i, diff)
		}
	}
	return table, doubled
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []*doppelv1.GroupMember
		want    placement.Table
		doubled []string
	}{
		{
			name: "a new group",
			members: []*doppelv1.GroupMember{
				{Node: "b", Incarnation: 2, Capacity: 1},
				{Node: "a", Incarnation: 1, Capacity: 3},
			},
			want: placement.Table{
				Generation: 5,
				Members:    []placement.Member{{ID: "a", Incarnation: 1, Capacity: 3}, {ID: "b", Incarnation: 2, Capacity: 1}},
				Owners:     []int32{0, 0, 0, 1},
			},
		},
		{
			name: "who comes back claims what others have got since",
			members: []*doppelv1.GroupMember{
				{Node: "a", Incarnation: 9, Capacity: 1, Generation: 2, Owned: []int32{0, 1, 2}},
				{Node: "b", Incarnation: 1, Capacity: 1, Generation: 4, Owned: []int32{0, 1}},
			},
			want: placement.Table{
				Generation: 5,
				Members:    []placement.Member{{ID: "a", Incarnation: 9, Capacity: 1}, {ID: "b", Incarnation: 1, Capacity: 1}},
				Owners:     []int32{1, 1, 0, 0},
			},
		},
		{
			name: "the group was made anew",
			members: []*doppelv1.GroupMember{
				{Node: "a", Incarnation: 1, Capacity: 1, Generation: 700},
				{Node: "b", Incarnation: 1},
			},
			want: placement.Table{
				Generation: 701,
				Members:    []placement.Member{{ID: "a", Incarnation: 1, Capacity: 1}, {ID: "b", Incarnation: 1}},
				Owners:     []int32{0, 0, 0, 0},
			},
		},
		{
			name: "two run under one id",
			members: []*doppelv1.GroupMember{
				{Node: "a", Incarnation: 2, Capacity: 2},
				{Node: "a", Incarnation: 1, Capacity: 1, Generation: 4, Owned: []int32{0, 1, 2, 3}},
				{Node: "b", Incarnation: 1, Capacity: 2},
			},
			want: placement.Table{
				Generation: 5,
				Members:    []placement.Member{{ID: "a", Incarnation: 2, Capacity: 2}, {ID: "b", Incarnation: 1, Capacity: 2}},
				Owners:     []int32{0, 1, 0, 1},
			},
			doubled: []string{"a"},
		},
		{
			name: "one has two seats",
			members: []*doppelv1.GroupMember{
				{Node: "a", Incarnation: 1, Capacity: 1, Generation: 4, Owned: []int32{0, 2}},
				{Node: "a", Incarnation: 1, Capacity: 1},
				{Node: "b", Incarnation: 1, Capacity: 1},
			},
			want: placement.Table{
				Generation: 5,
				Members:    []placement.Member{{ID: "a", Incarnation: 1, Capacity: 1}, {ID: "b", Incarnation: 1, Capacity: 1}},
				Owners:     []int32{0, 1, 0, 1},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the order of members does not matter
				got, doubled := agreed(t, 5, joined(t, c.members...))
				if diff := cmp.Diff(&c.want, got); diff != "" {
					t.Errorf("table (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff(c.doubled, doubled); diff != "" {
					t.Errorf("doubled (-want +got)\n%s", diff)
				}
				slices.Reverse(c.members)
			}
		})
	}
}

// A member that says nothing we understand is told the table and has no part in it.
func TestPlanPassesStrangersOver(t *testing.T) {
	var stranger kmsg.ConsumerMemberMetadata
	stranger.Default()
	stranger.UserData = []byte("\xff")
	var nameless kmsg.ConsumerMemberMetadata
	nameless.Default()
	js := joined(t, &doppelv1.GroupMember{Node: "a", Incarnation: 1, Capacity: 1})
	js = append(js,
		kmsg.JoinGroupResponseMember{MemberID: "x", ProtocolMetadata: stranger.AppendTo(nil)},
		kmsg.JoinGroupResponseMember{MemberID: "y", ProtocolMetadata: nameless.AppendTo(nil)},
		kmsg.JoinGroupResponseMember{MemberID: "z", ProtocolMetadata: []byte{1}})
	table, _ := agreed(t, 1, js)
	if diff := cmp.Diff(map[string]int{"a": 4}, counts(table)); diff != "" {
		t.Errorf("shares (-want +got)\n%s", diff)
	}
}

// Kafka's tools read the partitions of a member in Kafka's own fields.
func TestAssignmentIsReadableForTools(t *testing.T) {
	js := joined(t,
		&doppelv1.GroupMember{Node: "a", Incarnation: 1, Capacity: 1},
		&doppelv1.GroupMember{Node: "b", Incarnation: 1, Capacity: 1},
		&doppelv1.GroupMember{Node: "b", Incarnation: 2, Capacity: 1})
	pl := plan{topic: topic, partitions: 4, log: slog.New(slog.DiscardHandler)}
	as, err := pl.assignments(1, js)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string][]int32
	for i := range as {
		var ca kmsg.ConsumerMemberAssignment
		if err := ca.ReadFrom(as[i].MemberAssignment); err != nil {
			t.Fatal(err)
		}
		of := map[string][]int32{}
		for _, tp := range ca.Topics {
			of[tp.Topic] = tp.Partitions
		}
		got = append(got, of)
	}
	if diff := cmp.Diff([]map[string][]int32{{topic: {0, 2}}, {}, {topic: {1, 3}}}, got); diff != "" {
		t.Errorf("partitions (-want +got)\n%s", diff)
	}
}

func TestReadAssignmentRefuses(t *testing.T) {
	wrap := func(gt *doppelv1.GroupTable) []byte {
		b, err := proto.Marshal(gt)
		if err != nil {
			t.Fatal(err)
		}
		var ca kmsg.ConsumerMemberAssignment
		ca.Default()
		ca.UserData = b
		return ca.AppendTo(nil)
	}
	var strange kmsg.ConsumerMemberAssignment
	strange.Default()
	strange.UserData = []byte("\xff")
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"no table":              wrap(&doppelv1.GroupTable{}),
		"bytes of another kind": strange.AppendTo(nil),
		"owner behind the last": wrap(&doppelv1.GroupTable{Generation: 1, Owners: []int32{0}}),
		"owner below nobody":    wrap(&doppelv1.GroupTable{Generation: 1, Owners: []int32{-2}}),
	} {
		if table, _, err := readAssignment(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, table)
		}
	}
	if _, _, err := readAssignment(wrap(&doppelv1.GroupTable{Generation: 1, Owners: []int32{-1}})); err != nil {
		t.Errorf("a table of nobody: %v", err)
	}
}
