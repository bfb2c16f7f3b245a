package api

import (
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// fleetService serves the state of the fleet. What it does not define is UNIMPLEMENTED.
type fleetService struct {
	doppelv1.UnimplementedFleetServiceServer
	fleet        Fleet
	drains       Drains      // nil: nobody drains
	letters      DeadLetters // nil: there are none
	letterFilter *filter.Env
	decoder      func() *codec.Decoder
	redriving    chan struct{} // holds one while letters are sent again
}

// GetStatus returns nodes, partitions and totals.
func (s *fleetService) GetStatus(ctx context.Context, _ *doppelv1.GetStatusRequest) (*doppelv1.Status, error) {
	return s.fleet.Status(ctx)
}

// GetAudit returns the accounts.
func (s *fleetService) GetAudit(ctx context.Context, req *doppelv1.GetAuditRequest) (*doppelv1.Audit, error) {
	return s.fleet.Audit(ctx, req.GetDeep())
}
