package query

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Alerts returns the open alerts and those resolved within 24 hours, newest first.
func (r *Reader) Alerts(ctx context.Context) ([]*doppelv1.Alert, error) {
	var mu sync.Mutex
	var all []*doppelv1.Alert
	add := func(alerts []*doppelv1.Alert) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, alerts...)
	}
	err := r.ask(ctx, r.all(), func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error {
				alerts, err := r.cfg.Host.Alerts(ctx, p)
				add(alerts)
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			ctx, patience := newPatience(ctx, r.cfg.Patience)
			defer patience.stop()
			s, err := c.ReadAlerts(ctx, &doppelv1.ReadAlertsRequest{Partitions: ps})
			if err != nil {
				return m, err
			}
			var alerts []*doppelv1.Alert
			for {
				patience.begin()
				resp, err := s.Recv()
				patience.end()
				if err == io.EOF { //nolint:errorlint // Recv returns it bare
					add(alerts)
					return m, nil
				}
				if err != nil {
					return m, err // what came is left out: it is asked again
				}
				alerts = append(alerts, resp.GetAlerts()...)
				m.partitions = append(m.partitions, resp.GetNotServed()...)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, host.NewestFirst)
	return all, nil
}

// Alert returns one of those, or host.ErrUnknownAlert. An id says nothing of its partition, so all are
// asked; that some could not be is an error only if no other has it.
func (r *Reader) Alert(ctx context.Context, id string) (*doppelv1.Alert, error) {
	var mu sync.Mutex
	var found *doppelv1.Alert
	add := func(a *doppelv1.Alert) {
		mu.Lock()
		defer mu.Unlock()
		if a != nil {
			found = a
		}
	}
	err := r.ask(ctx, r.all(), func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error {
				a, err := r.cfg.Host.Alert(ctx, p, id)
				add(a)
				return err
			})
		}
		return r.soon(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.FindAlert(ctx, &doppelv1.FindAlertRequest{Partitions: ps, Id: id})
			add(resp.GetAlert())
			return missed{partitions: resp.GetNotServed()}, err
		})
	})
	mu.Lock()
	defer mu.Unlock()
	switch {
	case found != nil:
		return found, nil
	case err != nil:
		return nil, err
	default:
		return nil, fmt.Errorf("alert %q: %w", id, host.ErrUnknownAlert)
	}
}
