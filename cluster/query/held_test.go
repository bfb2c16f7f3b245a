package query_test

import (
	"context"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// hold returns when a question about a partition may be answered.
type hold func(ctx context.Context, p int32) error

// held is the host of a node whose answers the test may hold back.
type held struct {
	*host.Host
	n *node
}

func (h held) hold(ctx context.Context, p int32) error {
	if wait := h.n.hold.Load(); wait != nil {
		return (*wait)(ctx, p)
	}
	return nil
}

func (h held) Devices(ctx context.Context, p int32) ([]string, error) {
	if err := h.hold(ctx, p); err != nil {
		return nil, err
	}
	return h.Host.Devices(ctx, p)
}

func (h held) Twins(ctx context.Context, p int32, devices []string) ([]*doppelv1.Twin, error) {
	if err := h.hold(ctx, p); err != nil {
		return nil, err
	}
	return h.Host.Twins(ctx, p, devices)
}

func (h held) Alerts(ctx context.Context, p int32) ([]*doppelv1.Alert, error) {
	if err := h.hold(ctx, p); err != nil {
		return nil, err
	}
	return h.Host.Alerts(ctx, p)
}

func (h held) Alert(ctx context.Context, p int32, id string) (*doppelv1.Alert, error) {
	if err := h.hold(ctx, p); err != nil {
		return nil, err
	}
	return h.Host.Alert(ctx, p, id)
}
