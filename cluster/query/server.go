package query

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Part is the fleet as one node sees it by itself.
type Part interface {
	// Status is of this node and its own partitions.
	Status(ctx context.Context) (*doppelv1.Status, error)
	// Audit checks the accounts of this node and its own partitions.
	Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error)
	// Drain takes partitions and MQTT share away from this node, or gives it its share again.
	Drain(ctx context.Context, undo bool) (*doppelv1.Node, error)
}

// Changes tells which twins of this node change. Each call has a place of its own.
type Changes interface {
	// FollowChanges calls tell with the ids of twins that changed at this node since the place given
	// (0, 0: from now on), and with the place behind them, until ctx ends, tell fails or the node
	// leaves. It calls it at least every second, and at once at the start; anew says, in the first call,
	// that it could not go on at that place.
	FollowChanges(ctx context.Context, incarnation, seq uint64, tell func(incarnation, seq uint64, ids []string, anew bool) error) error
}

// Server answers other nodes.
type Server struct {
	doppelv1.UnimplementedQueryServiceServer
	host     Host
	part     Part
	changes  Changes
	rules    RuleBook // nil: it changes none
	commands Commands // nil: nobody sends any
}

// NewServer returns a Server of the partitions of h.
func NewServer(h Host, part Part, changes Changes) *Server {
	return &Server{host: h, part: part, changes: changes}
}

// Register adds the service to the server that other nodes reach.
func (s *Server) Register(r grpc.ServiceRegistrar) { doppelv1.RegisterQueryServiceServer(r, s) }

// check refuses a partition that there is none of: the other node counts them otherwise.
func (s *Server) check(p int32) error {
	if p < 0 || int(p) >= len(s.host.Partitions()) {
		return status.Errorf(codes.InvalidArgument, "there is no partition %d here", p)
	}
	return nil
}

// ReadPast implements the service.
func (s *Server) ReadPast(ctx context.Context, req *doppelv1.ReadPastRequest) (*doppelv1.ReadPastResponse, error) {
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	t, err := s.host.TwinAsOf(ctx, req.GetPartition(), req.GetDevice(), host.AsOf{Version: req.GetVersion(), Time: req.GetTimeUnixNano()})
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ReadPastResponse{Twin: t}, nil
}

// ReplayLog implements the service.
func (s *Server) ReplayLog(ctx context.Context, req *doppelv1.ReplayLogRequest) (*doppelv1.ReplayLogResponse, error) {
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	r, err := s.host.Replay(ctx, req.GetPartition(), req.GetDevice())
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ReplayLogResponse{Replay: &doppelv1.ReplayTwinResponse{
		Equal: r.Equal, Difference: r.Difference, StateHash: r.Hash, Inputs: r.Inputs, Start: r.Start.Kind, StartOffset: uint64(r.Start.Offset),
		StartVersion: r.Start.Version, NextOffset: uint64(r.Next), Version: r.Version,
	}}, nil
}

// Reset implements the service.
func (s *Server) Reset(ctx context.Context, req *doppelv1.ResetRequest) (*doppelv1.ResetResponse, error) {
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	if err := s.host.Reset(ctx, req.GetPartition(), req.GetDevice()); err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ResetResponse{}, nil
}

// ReadStatus implements the service.
func (s *Server) ReadStatus(ctx context.Context, _ *doppelv1.ReadStatusRequest) (*doppelv1.ReadStatusResponse, error) {
	st, err := s.part.Status(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ReadStatusResponse{Status: st}, nil
}

// ReadAudit implements the service.
func (s *Server) ReadAudit(ctx context.Context, req *doppelv1.ReadAuditRequest) (*doppelv1.ReadAuditResponse, error) {
	a, err := s.part.Audit(ctx, req.GetDeep())
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ReadAuditResponse{Audit: a}, nil
}

// Drain implements the service.
func (s *Server) Drain(ctx context.Context, req *doppelv1.DrainRequest) (*doppelv1.DrainResponse, error) {
	n, err := s.part.Drain(ctx, req.GetUndo())
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.DrainResponse{Node: n}, nil
}

// FollowChanges implements the service.
func (s *Server) FollowChanges(req *doppelv1.FollowChangesRequest, stream grpc.ServerStreamingServer[doppelv1.FollowChangesResponse]) error {
	last := &doppelv1.FollowChangesResponse{Ended: true}
	err := s.changes.FollowChanges(stream.Context(), req.GetIncarnation(), req.GetSeq(), func(incarnation, seq uint64, ids []string, anew bool) error {
		last.Incarnation, last.Seq = incarnation, seq
		return stream.Send(&doppelv1.FollowChangesResponse{Incarnation: incarnation, Seq: seq, Ids: ids, Anew: anew && !s.untouched()})
	})
	if err != nil {
		return toStatus(err)
	}
	if !s.serving() {
		if err := stream.Send(last); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the node tells of no more changes")
}

// untouched says whether no twin can have changed here yet: the node has served nothing.
func (s *Server) untouched() bool {
	st := s.host.Stats()
	return !s.serving() && st.Received.Load() == 0 && st.Replayed.Load() == 0
}

func (s *Server) serving() bool {
	return slices.ContainsFunc(s.host.Partitions(), answers)
}
