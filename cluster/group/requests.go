package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// protocolType makes it a group of consumers to Kafka's tools, protocolName a group of Doppel's nodes:
	// a consumer that has strayed into it is refused.
	protocolType = "consumer"
	protocolName = "doppel"
	// answerTimeout is after how long without an answer a connection is given up, beyond the time for
	// which the coordinator may hold the request.
	answerTimeout = 2 * time.Second
	// leaveTimeout is shorter: with a connection given up, a new one would be made, and waited for.
	leaveTimeout = answerTimeout * 3 / 4
)

// transport is what the client needs beyond a connection: it must notice soon that a broker is gone,
// and come back soon.
func transport() []kgo.Opt {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.OffsetCommit), 9) // later ones name a topic by its id
	return []kgo.Opt{
		kgo.MaxVersions(versions),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.DialTimeout(answerTimeout),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100*time.Millisecond + rand.N(100*time.Millisecond) }),
	}
}

// askJoin joins with the given seat. It returns when the members of a generation are complete.
func (g *Group) askJoin(ctx context.Context, cl *kgo.Client, s seat, m *doppelv1.GroupMember) (*kmsg.JoinGroupResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, rebalanceTimeout+2*answerTimeout)
	defer cancel()
	md, err := subscription(g.cfg.Topic, m)
	if err != nil {
		return nil, err
	}
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = protocolName, md
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = g.cfg.Group, s.member, protocolType
	req.SessionTimeoutMillis = int32(sessionTimeout.Milliseconds())
	req.RebalanceTimeoutMillis = int32(rebalanceTimeout.Milliseconds())
	req.Protocols = append(req.Protocols, p)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return resp, fmt.Errorf("join: %w", err)
	}
	return resp, nil
}

// askSync gets this member's assignment; the leader brings those of all.
func (g *Group) askSync(ctx context.Context, cl *kgo.Client, s seat, as []kmsg.SyncGroupRequestGroupAssignment) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, rebalanceTimeout+2*answerTimeout)
	defer cancel()
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = g.cfg.Group, s.member, s.generation
	req.ProtocolType, req.Protocol = new(protocolType), new(protocolName)
	req.GroupAssignment = as
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	return resp.MemberAssignment, nil
}

func (g *Group) askHeartbeat(ctx context.Context, cl *kgo.Client, s seat) error {
	ctx, cancel := context.WithTimeout(ctx, 2*answerTimeout)
	defer cancel()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = g.cfg.Group, s.member, s.generation
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return nil
}

func (g *Group) askLeave(ctx context.Context, cl *kgo.Client, s seat) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID, m.Reason = s.member, new("the node stops")
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID, req.Members = g.cfg.Group, s.member, []kmsg.LeaveGroupRequestMember{m}
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err == nil && len(resp.Members) == 1 {
		err = kerr.ErrorForCode(resp.Members[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

func (g *Group) commit(ctx context.Context, cl *kgo.Client, s seat, offsets map[int32]int64) error {
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = g.cfg.Topic
	for p, o := range offsets {
		op := kmsg.NewOffsetCommitRequestTopicPartition()
		op.Partition, op.Offset = p, o
		topic.Partitions = append(topic.Partitions, op)
	}
	slices.SortFunc(topic.Partitions, func(a, b kmsg.OffsetCommitRequestTopicPartition) int { return int(a.Partition - b.Partition) })
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = g.cfg.Group, s.member, s.generation
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for i := range resp.Topics {
		for _, p := range resp.Topics[i].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("p%d: %w", p.Partition, err)
			}
		}
	}
	return nil
}
