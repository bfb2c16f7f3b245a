package apitest

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Invoke implements api.Commands: every device that is online answers with its own name and what it was told;
// 404 to "dance", and nothing to "mute".
func (f *Fleet) Invoke(ctx context.Context, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error) {
	t, err := f.Twin(ctx, req.GetId())
	switch {
	case err != nil:
		return nil, err
	case !t.GetOnline() && !req.GetQueueIfOffline():
		return nil, fmt.Errorf("command: %w", command.ErrOffline)
	case req.GetName() == "mute":
		bound, cancel := context.WithTimeout(ctx, req.GetTimeout().AsDuration())
		defer cancel()
		<-bound.Done()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("command: %w", command.ErrNoReply)
	}
	body, err := structpb.NewStruct(map[string]any{"device": req.GetId(), "told": req.GetBody().AsInterface()})
	if err != nil {
		return nil, err
	}
	reply := &doppelv1.InvokeCommandResponse{Status: 200, Body: structpb.NewStructValue(body)}
	if req.GetName() == "dance" {
		reply.Status = 404
	}
	return reply, nil
}
