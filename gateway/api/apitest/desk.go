package apitest

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Acknowledge implements api.AlertDesk, at Epoch plus as many nanoseconds as it was called.
func (f *Fleet) Acknowledge(ctx context.Context, device, id, by, comment string) (*doppelv1.Alert, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.alerts[id]
	switch {
	case !ok || a.GetDevice() != device:
		return nil, fmt.Errorf("acknowledge alert %s: %w", id, host.ErrUnknownAlert)
	case a.GetState() == doppelv1.AlertState_RESOLVED:
		return nil, fmt.Errorf("acknowledge alert %s: %w", id, host.ErrAlertResolved)
	}
	f.acknowledged++
	if a.GetAcknowledgedBy() != by || comment != "" && a.GetAcknowledgeComment() != comment {
		a = proto.CloneOf(a)
		a.AcknowledgeTime = timestamppb.New(Epoch().Add(f.acknowledged))
		a.AcknowledgedBy, a.AcknowledgeComment = by, comment
		f.alerts[id] = a
	}
	return proto.CloneOf(a), nil
}

// Explain implements api.AlertDesk: with three readings a second apart, the last of which is the alert's. Of
// what has an id below 16 the log has no records any more.
func (f *Fleet) Explain(ctx context.Context, device, id string) (*doppelv1.ExplainAlertResponse, error) {
	a, err := f.Alert(ctx, id)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(id, 16, 64)
	switch {
	case err != nil || a.GetDevice() != device:
		return nil, host.ErrUnknownAlert
	case n < 16:
		return nil, fmt.Errorf("explain alert %s: %w", id, host.ErrNotRetained)
	}
	f.mu.Lock()
	e := &doppelv1.ExplainAlertResponse{Recomputed: a, Equal: f.difference == ""}
	f.mu.Unlock()
	for i := range 3 {
		at := a.GetFireTime().AsTime().Add(time.Second * time.Duration(i-2))
		p := &doppelv1.Point{Time: timestamppb.New(at), Boot: a.GetBoot(), Seq: a.GetSeq() - uint64(2-i), Value: a.GetValue() - float64(2-i), Count: 1}
		if i > 0 {
			p.Z = new(float64(i) + a.GetScore() - 2)
		}
		e.Evidence = append(e.Evidence, p)
	}
	return e, nil
}
