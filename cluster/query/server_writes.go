package query

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// WriteTwin implements the service.
func (s *Server) WriteTwin(ctx context.Context, req *doppelv1.WriteTwinRequest) (*doppelv1.WriteTwinResponse, error) {
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	switch w := req.GetWrite().(type) {
	case *doppelv1.WriteTwinRequest_Acknowledge:
		return s.acknowledge(ctx, req.GetPartition(), req.GetDevice(), w.Acknowledge)
	case *doppelv1.WriteTwinRequest_Update:
		return s.update(ctx, req, w.Update)
	case *doppelv1.WriteTwinRequest_Delete:
		if err := s.host.Delete(ctx, req.GetPartition(), req.GetDevice(), req.GetEtag()); err != nil {
			return nil, toStatus(err)
		}
		return &doppelv1.WriteTwinResponse{}, nil
	default:
		return nil, status.Error(codes.Unimplemented, "this node does not know this write")
	}
}
