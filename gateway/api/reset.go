package api

import (
	"context"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Resets lets twins begin anew.
type Resets interface {
	// Reset lifts a quarantine and lets the device's numbering begin where it is now. It returns when
	// that is durable; host.ErrUnknownDevice without a twin.
	Reset(ctx context.Context, id string) error
}

// ResetTwin accepts a device's numbering anew, lifts a quarantine and returns the twin as it is then.
func (s *twinService) ResetTwin(ctx context.Context, req *doppelv1.ResetTwinRequest) (*doppelv1.Twin, error) {
	if s.resets == nil {
		return s.UnimplementedTwinServiceServer.ResetTwin(ctx, req)
	}
	if err := checkDevice("id", req.GetId()); err != nil {
		return nil, err
	}
	if err := s.resets.Reset(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return s.twins.Twin(ctx, req.GetId())
}
