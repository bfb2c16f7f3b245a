package api

import (
	"context"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Drains empties nodes.
type Drains interface {
	// Drain takes partitions and MQTT share away from a node, or, to undo it, gives it its share again.
	// It returns when the node knows; the partitions move behind that.
	Drain(ctx context.Context, id string, undo bool) (*doppelv1.Node, error)
}

// DrainNode has a node emptied, so that it can be stopped without anybody noticing.
func (s *fleetService) DrainNode(ctx context.Context, req *doppelv1.DrainNodeRequest) (*doppelv1.Node, error) {
	if s.drains == nil {
		return s.UnimplementedFleetServiceServer.DrainNode(ctx, req)
	}
	if req.GetId() == "" {
		return nil, invalid("id", "is required: the id of a node, as GetStatus lists them")
	}
	return s.drains.Drain(ctx, req.GetId(), req.GetUndo())
}
