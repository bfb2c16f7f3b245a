package query

import (
	"context"
	"fmt"
	"strconv"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Acknowledge notes that somebody looks after an alert of a device; see host.Host.Acknowledge.
func (r *Reader) Acknowledge(ctx context.Context, device, id, by, comment string) (a *doppelv1.Alert, err error) {
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("alert %q: %w", id, host.ErrUnknownAlert)
	}
	p := r.partition(device)
	err = r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) {
				a, err = r.cfg.Host.Acknowledge(ctx, p, device, alert.Acknowledgement{Alert: n, By: by, Comment: comment})
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.WriteTwin(ctx, &doppelv1.WriteTwinRequest{Partition: p, Device: device, Write: &doppelv1.WriteTwinRequest_Acknowledge{
				Acknowledge: &doppelv1.AcknowledgeWrite{Alert: n, By: by, Comment: comment},
			}})
			a = resp.GetAlert()
			return m, err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("acknowledge alert %s: %w", id, err)
	}
	return a, nil
}

// Explain tells an alert of a device again from the log; see host.Host.Explain.
func (r *Reader) Explain(ctx context.Context, device, id string) (e *doppelv1.ExplainAlertResponse, err error) {
	p := r.partition(device)
	err = r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) {
				e, err = r.cfg.Host.Explain(ctx, p, device, id)
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.Explain(ctx, &doppelv1.ExplainRequest{Partition: p, Device: device, Id: id})
			e = resp.GetExplanation()
			return m, err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("explain alert %s: %w", id, err)
	}
	return e, nil
}

// Explain implements the service.
func (s *Server) Explain(ctx context.Context, req *doppelv1.ExplainRequest) (*doppelv1.ExplainResponse, error) {
	if err := s.check(req.GetPartition()); err != nil {
		return nil, err
	}
	e, err := s.host.Explain(ctx, req.GetPartition(), req.GetDevice(), req.GetId())
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.ExplainResponse{Explanation: e}, nil
}

// acknowledge is WriteTwin of an acknowledgement.
func (s *Server) acknowledge(ctx context.Context, p int32, device string, w *doppelv1.AcknowledgeWrite) (*doppelv1.WriteTwinResponse, error) {
	a, err := s.host.Acknowledge(ctx, p, device, alert.Acknowledgement{Alert: w.GetAlert(), By: w.GetBy(), Comment: w.GetComment()})
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.WriteTwinResponse{Alert: a}, nil
}
