package group

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// plan is what the leader of a generation works out.
type plan struct {
	topic      string
	partitions int32
	log        *slog.Logger
}

// assignments is the table of a generation, once for every member.
//
// Its own generation is the group's, except that it always exceeds those of the tables that members
// have seen: Kafka forgets an empty group, and one made anew counts from 1.
func (pl *plan) assignments(generation int32, joined []kmsg.JoinGroupResponseMember) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	nodes := make(map[string]*doppelv1.GroupMember, len(joined))
	of := make(map[string]*doppelv1.GroupMember, len(joined)) // by member id
	doubled := make(map[string]struct{})
	next := int64(generation)
	for i := range joined {
		m, err := readSubscription(joined[i].ProtocolMetadata)
		if err != nil {
			pl.log.Warn("a member of the group is not understood, it gets no partitions", "member", joined[i].MemberID, "error", err)
			continue
		}
		of[joined[i].MemberID] = m
		next = max(next, m.GetGeneration()+1)
		was := nodes[m.GetNode()]
		if was != nil && was.GetIncarnation() != m.GetIncarnation() {
			doubled[m.GetNode()] = struct{}{}
		}
		if was == nil || later(m, was) {
			nodes[m.GetNode()] = m
		}
	}
	table := placement.NewTable(next, members(nodes), pl.partitions)
	return pl.wrap(table, slices.Sorted(maps.Keys(doubled)), joined, of)
}

// later reports whether a, not b, stands for the node that both are. Of one incarnation that has two
// seats, because it lost one, the one that knows more.
func later(a, b *doppelv1.GroupMember) bool {
	if a.GetIncarnation() != b.GetIncarnation() {
		return a.GetIncarnation() > b.GetIncarnation()
	}
	return a.GetGeneration() > b.GetGeneration()
}

// members are the nodes for Assign. Of several that claim a partition only those whose table is newest
// are left.
func members(nodes map[string]*doppelv1.GroupMember) []placement.Member {
	newest := make(map[int32]int64)
	for _, m := range nodes {
		for _, p := range m.GetOwned() {
			newest[p] = max(newest[p], m.GetGeneration())
		}
	}
	ms := make([]placement.Member, 0, len(nodes))
	for id, m := range nodes {
		pm := placement.Member{ID: id, Incarnation: m.GetIncarnation(), Capacity: int(m.GetCapacity())}
		for _, p := range m.GetOwned() {
			if m.GetGeneration() == newest[p] {
				pm.Owned = append(pm.Owned, p)
			}
		}
		ms = append(ms, pm)
	}
	return ms
}

// wrap puts the table into the assignment of everyone who joined. Kafka's own fields say which
// partitions are a member's, for the tools that show a group.
func (pl *plan) wrap(t *placement.Table, doubled []string, joined []kmsg.JoinGroupResponseMember, of map[string]*doppelv1.GroupMember) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	gt := &doppelv1.GroupTable{Generation: t.Generation, Owners: t.Owners, Doubled: doubled}
	for _, m := range t.Members {
		gt.Members = append(gt.Members, &doppelv1.GroupTableMember{Node: m.ID, Incarnation: m.Incarnation, Capacity: uint32(m.Capacity)})
	}
	data, err := proto.Marshal(gt)
	if err != nil {
		return nil, fmt.Errorf("table %d: %w", t.Generation, err)
	}
	as := make([]kmsg.SyncGroupRequestGroupAssignment, 0, len(joined))
	for i := range joined {
		var ca kmsg.ConsumerMemberAssignment
		ca.Default()
		ca.UserData = data
		if m := of[joined[i].MemberID]; m != nil {
			if in, _ := t.Member(m.GetNode()); in.Incarnation == m.GetIncarnation() {
				topic := kmsg.NewConsumerMemberAssignmentTopic()
				topic.Topic, topic.Partitions = pl.topic, t.Owned(m.GetNode())
				ca.Topics = append(ca.Topics, topic)
			}
		}
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = joined[i].MemberID, ca.AppendTo(nil)
		as = append(as, a)
	}
	return as, nil
}

// subscription is what a member says of itself when it joins.
func subscription(topic string, m *doppelv1.GroupMember) ([]byte, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("group member: %w", err)
	}
	var md kmsg.ConsumerMemberMetadata
	md.Default()
	md.Topics, md.UserData = []string{topic}, data
	return md.AppendTo(nil), nil
}

func readSubscription(b []byte) (*doppelv1.GroupMember, error) {
	var md kmsg.ConsumerMemberMetadata
	md.Default()
	if err := md.ReadFrom(b); err != nil {
		return nil, fmt.Errorf("subscription: %w", err)
	}
	m := new(doppelv1.GroupMember)
	if err := proto.Unmarshal(md.UserData, m); err != nil {
		return nil, fmt.Errorf("subscription: %w", err)
	}
	if m.GetNode() == "" {
		return nil, errors.New("subscription: no node")
	}
	return m, nil
}

// readAssignment is the table of an assignment, and the nodes that are there twice.
func readAssignment(b []byte) (t *placement.Table, doubled []string, err error) {
	var ca kmsg.ConsumerMemberAssignment
	ca.Default()
	if err := ca.ReadFrom(b); err != nil {
		return nil, nil, fmt.Errorf("assignment: %w", err)
	}
	gt := new(doppelv1.GroupTable)
	if err := proto.Unmarshal(ca.UserData, gt); err != nil {
		return nil, nil, fmt.Errorf("assignment: %w", err)
	}
	if gt.GetGeneration() == 0 {
		return nil, nil, errors.New("assignment: no table")
	}
	t = &placement.Table{Generation: gt.GetGeneration(), Owners: gt.GetOwners()}
	for _, m := range gt.GetMembers() {
		t.Members = append(t.Members, placement.Member{ID: m.GetNode(), Incarnation: m.GetIncarnation(), Capacity: int(m.GetCapacity())})
	}
	for p, i := range t.Owners {
		if i < -1 || int(i) >= len(t.Members) {
			return nil, nil, fmt.Errorf("assignment: p%d has owner %d of %d", p, i, len(t.Members))
		}
	}
	return t, gt.GetDoubled(), nil
}
