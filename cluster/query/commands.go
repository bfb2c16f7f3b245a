package query

import (
	"context"
	"fmt"

	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Commands sends commands to the devices of the partitions of this node; command.Local implements it.
type Commands interface {
	// Invoke returns the device's answer, or an error of package command or host.
	Invoke(ctx context.Context, partition int32, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error)
}

// Invoke sends a command by the node that serves the device. When that node goes away before it has
// answered, only a command with a key is taken to another: its device can tell that it has it already.
func (r *Reader) Invoke(ctx context.Context, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error) {
	p := r.partition(req.GetId())
	var reply *doppelv1.InvokeCommandResponse
	var broken error
	err := r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) {
				reply, err = r.cfg.Commands.Invoke(ctx, p, req)
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.Invoke(ctx, &doppelv1.InvokeRequest{Partition: p, Command: req})
			if _, answered := fromStatus(err); err != nil && !answered && over(ctx) == nil && req.GetIdempotencyKey() == "" {
				broken = fmt.Errorf("node %s: %w", to.Address, command.ErrUncertain)
				return m, nil
			}
			reply = resp.GetReply()
			return m, err
		})
	})
	if err == nil {
		err = broken
	}
	if err != nil {
		return nil, fmt.Errorf("command %s of %q: %w", req.GetName(), req.GetId(), err)
	}
	return reply, nil
}

// ServeCommands makes the server take commands for the devices of this node. Call it before Register.
func (s *Server) ServeCommands(c Commands) { s.commands = c }

// Invoke implements the service.
func (s *Server) Invoke(ctx context.Context, req *doppelv1.InvokeRequest) (*doppelv1.InvokeResponse, error) {
	if s.commands == nil {
		return s.UnimplementedQueryServiceServer.Invoke(ctx, req)
	}
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	reply, err := s.commands.Invoke(ctx, req.GetPartition(), req.GetCommand())
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.InvokeResponse{Reply: reply}, nil
}
