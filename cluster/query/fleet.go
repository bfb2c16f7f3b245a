package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Unreachable is the state of a node that does not answer.
const Unreachable = "unreachable"

// Letters are the dead letters of the cluster.
type Letters interface {
	Bounds(ctx context.Context) (start, end int64, err error)
	Scan(ctx context.Context, from, to int64, fn func(*doppelv1.DeadLetter) error) error
}

// FleetConfig of a Fleet.
type FleetConfig struct {
	Reader *Reader
	Part   Part // this node
	// Target is the id of the node that is to own a partition; empty: none is known. Nil: the owner.
	Target  func(p int32) string
	Letters Letters // nil: a deep audit counts none
}

// Fleet says how all nodes are doing together.
type Fleet struct {
	cfg FleetConfig
}

// NewFleet returns a Fleet.
func NewFleet(cfg FleetConfig) *Fleet {
	if cfg.Target == nil {
		cfg.Target = func(int32) string { return "" }
	}
	return &Fleet{cfg: cfg}
}

// member is a node and how it is asked.
type member struct {
	*doppelv1.NodeRecord
	self bool
}

// members are the nodes there are, by id.
func (f *Fleet) members() []member {
	self := f.cfg.Reader.cfg.Node
	all := []member{{&doppelv1.NodeRecord{Id: self}, true}}
	for _, n := range f.cfg.Reader.cfg.Members() {
		if n.GetId() != self {
			all = append(all, member{n, false})
		}
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return all
}

// said is what a node said of itself, or that it said nothing.
type said struct {
	member
	status *doppelv1.Status
	err    error
}

// Status merges what all nodes say of themselves; one that does not answer in time is unreachable.
func (f *Fleet) Status(ctx context.Context) (*doppelv1.Status, error) {
	answers := f.ask(ctx)
	sum := &doppelv1.Status{}
	best := make(map[int32]*doppelv1.Partition)
	seen := make(map[string]counts)
	for _, a := range answers {
		if a.err != nil {
			if a.self || ctx.Err() != nil {
				return nil, a.err
			}
			sum.Nodes = append(sum.Nodes, &doppelv1.Node{
				Id: a.GetId(), Address: a.GetAddress(), State: Unreachable, Version: a.GetVersion(), StartTime: timestamppb.New(time.Unix(0, a.GetStartTime())),
			})
			continue
		}
		st := a.status
		sum.Nodes = append(sum.Nodes, st.GetNodes()...)
		sum.Twins += st.GetTwins()
		sum.Online += st.GetOnline()
		sum.OpenAlerts += st.GetOpenAlerts()
		sum.SamplesPerSecond += st.GetSamplesPerSecond()
		for _, p := range st.GetPartitions() {
			if old := best[p.GetId()]; old == nil || better(p, old) {
				best[p.GetId()] = p
			}
		}
		if !a.self {
			seen[a.GetAddress()] = counts{st.GetTwins(), st.GetOnline(), st.GetOpenAlerts()}
		}
	}
	for id := range f.cfg.Reader.cfg.Partitions {
		p := best[id]
		if p == nil {
			p = &doppelv1.Partition{Id: id}
		}
		if to := f.cfg.Target(id); to != p.GetOwner() {
			p.MovingTo = to
		}
		sum.Partitions = append(sum.Partitions, p)
	}
	r := f.cfg.Reader
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = seen
	return sum, nil
}

// better says whether a tells more of a partition than b: who owns it knows best, and of two who
// think they do the one with the newer epoch is right.
func better(a, b *doppelv1.Partition) bool {
	if own, other := a.GetOwner() != "", b.GetOwner() != ""; own != other {
		return own
	}
	return a.GetEpoch() > b.GetEpoch()
}

// ask asks every node at the same time.
func (f *Fleet) ask(ctx context.Context) []said {
	members := f.members()
	answers := make([]said, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			answers[i].member = m
			answers[i].status, answers[i].err = f.statusOf(ctx, m)
		})
	}
	wg.Wait()
	return answers
}

func (f *Fleet) statusOf(ctx context.Context, m member) (*doppelv1.Status, error) {
	if m.self {
		return f.cfg.Part.Status(ctx)
	}
	c, err := f.cfg.Reader.client(m.GetAddress())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Reader.cfg.Patience)
	defer cancel()
	resp, err := c.ReadStatus(ctx, &doppelv1.ReadStatusRequest{})
	return resp.GetStatus(), err
}

// Drain takes partitions and MQTT share away from a node, or gives it its share again.
func (f *Fleet) Drain(ctx context.Context, id string, undo bool) (*doppelv1.Node, error) {
	for _, m := range f.members() {
		if m.GetId() != id {
			continue
		}
		if m.self {
			return f.cfg.Part.Drain(ctx, undo)
		}
		c, err := f.cfg.Reader.client(m.GetAddress())
		if err != nil {
			return nil, status.Errorf(codes.Unavailable, "node %s: %v", id, err)
		}
		bound, cancel := context.WithTimeout(ctx, f.cfg.Reader.cfg.Patience)
		defer cancel()
		resp, err := c.Drain(bound, &doppelv1.DrainRequest{Undo: undo})
		if err != nil {
			if _, answered := fromStatus(err); !answered && ctx.Err() == nil {
				return nil, status.Errorf(codes.Unavailable, "node %s does not answer", id)
			}
			return nil, err
		}
		return resp.GetNode(), nil
	}
	return nil, detailed(codes.NotFound, fmt.Sprintf("there is no node %q: GetStatus lists those there are", id),
		&errdetails.ErrorInfo{Reason: "UNKNOWN_NODE", Domain: auth.Domain})
}
