package api

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// asOf is the moment that a request names, and the field that names it.
func asOf(req *doppelv1.GetTwinRequest) (at host.AsOf, field string, err error) {
	switch m := req.GetAsOf().(type) {
	case *doppelv1.GetTwinRequest_Version:
		if m.Version == 0 {
			return at, "version", invalid("version", "is 0, and a twin's first version is 1")
		}
		return host.AsOf{Version: m.Version}, "version", nil
	case *doppelv1.GetTwinRequest_Time:
		if err := m.Time.CheckValid(); err != nil {
			return at, "time", invalid("time", "%v", err)
		}
		t := m.Time.AsTime()
		if !t.After(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
			return at, "time", invalid("time", "%s is not between 1970 and 2262", t.Format(time.RFC3339))
		}
		return host.AsOf{Time: t.UnixNano()}, "time", nil
	}
	return at, "", errors.New("no moment")
}

// pastTwin is GetTwin with as_of.
func (s *twinService) pastTwin(ctx context.Context, req *doppelv1.GetTwinRequest) (*doppelv1.Twin, error) {
	at, field, err := asOf(req)
	if err != nil {
		return nil, err
	}
	if s.past == nil {
		return nil, status.Error(codes.Unimplemented, "as_of: this node serves no past states")
	}
	t, err := s.past.TwinAsOf(ctx, req.GetId(), at)
	if errors.Is(err, host.ErrFuture) {
		return nil, invalid(field, "%v", err)
	}
	return t, err
}

// ReplayTwin folds the log of a twin again and compares.
func (s *twinService) ReplayTwin(ctx context.Context, req *doppelv1.ReplayTwinRequest) (*doppelv1.ReplayTwinResponse, error) {
	if err := checkDevice("id", req.GetId()); err != nil {
		return nil, err
	}
	if s.past == nil {
		return nil, status.Error(codes.Unimplemented, "this node replays no twins")
	}
	r, err := s.past.Replay(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &doppelv1.ReplayTwinResponse{
		Equal: r.Equal, Difference: r.Difference, StateHash: r.Hash, Inputs: r.Inputs,
		Start: r.Start.Kind, StartOffset: uint64(r.Start.Offset), StartVersion: r.Start.Version,
		NextOffset: uint64(r.Next), Version: r.Version,
	}, nil
}
