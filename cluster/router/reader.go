package router

import (
	"context"
	"fmt"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Reader answers questions about twins and alerts from the partitions that hold them; what it
// returns is released state. Today all of them are on this node. Safe for concurrent use.
type Reader struct {
	host       *host.Host
	partitions int32
}

// NewReader returns a Reader of the n partitions of h.
func NewReader(h *host.Host, n int32) *Reader { return &Reader{host: h, partitions: n} }

// Twin returns one twin, or host.ErrUnknownDevice.
func (r *Reader) Twin(ctx context.Context, id string) (*doppelv1.Twin, error) {
	t, err := r.host.Twin(ctx, placement.Partition([]byte(id), r.partitions), id)
	if err != nil {
		return nil, fmt.Errorf("twin %q: %w", id, err)
	}
	return t, nil
}

// Twins returns those of the ids that exist.
func (r *Reader) Twins(ctx context.Context, ids []string) ([]*doppelv1.Twin, error) {
	byPartition := make(map[int32][]string)
	for _, id := range ids {
		p := placement.Partition([]byte(id), r.partitions)
		byPartition[p] = append(byPartition[p], id)
	}
	var all []*doppelv1.Twin
	for p, ids := range byPartition {
		twins, err := r.host.Twins(ctx, p, ids)
		if err != nil {
			return nil, err
		}
		all = append(all, twins...)
	}
	return all, nil
}

// TwinAsOf returns one twin as it was.
func (r *Reader) TwinAsOf(ctx context.Context, id string, at host.AsOf) (*doppelv1.Twin, error) {
	return r.host.TwinAsOf(ctx, placement.Partition([]byte(id), r.partitions), id, at)
}

// Replay folds the log of a twin again and compares.
func (r *Reader) Replay(ctx context.Context, id string) (host.Replay, error) {
	return r.host.Replay(ctx, placement.Partition([]byte(id), r.partitions), id)
}

// EachTwin calls fn with every twin until it returns false.
func (r *Reader) EachTwin(ctx context.Context, fn func(*doppelv1.Twin) bool) error {
	more := true
	for p := range r.partitions {
		err := r.host.EachTwin(ctx, p, func(t *doppelv1.Twin) bool {
			more = fn(t)
			return more
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Count is how many twins, online twins and open alerts there are.
func (r *Reader) Count() (twins, online, openAlerts uint64) {
	for _, v := range r.host.Partitions() {
		twins += uint64(v.Twins)
		online += uint64(v.Online)
		openAlerts += uint64(v.OpenAlerts)
	}
	return twins, online, openAlerts
}

// Alerts returns the open alerts and those resolved within 24 hours.
func (r *Reader) Alerts(ctx context.Context) ([]*doppelv1.Alert, error) {
	var all []*doppelv1.Alert
	for p := range r.partitions {
		alerts, err := r.host.Alerts(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, alerts...)
	}
	return all, nil
}

// Alert returns one of those, or host.ErrUnknownAlert. An id says nothing of its partition.
func (r *Reader) Alert(ctx context.Context, id string) (*doppelv1.Alert, error) {
	for p := range r.partitions {
		a, err := r.host.Alert(ctx, p, id)
		if err != nil || a != nil {
			return a, err
		}
	}
	return nil, fmt.Errorf("alert %q: %w", id, host.ErrUnknownAlert)
}
