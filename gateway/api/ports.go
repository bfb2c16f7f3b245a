// Package api is the gRPC door: it serves doppel.v1 from the twins a node can reach.
//
// It reads, filters, pages and streams. It owns no twin and changes none: what it serves comes
// through the ports below. Its Hub is told by the partitions and by other nodes which twins changed,
// and follows the log of alerts. It listens on nothing; whoever wires the node gives it a listener.
//
// Concurrency: an API is safe for concurrent use. Every call runs on the goroutine that gRPC gave
// it; beside them there are Hub.Run, what follows other nodes while somebody watches twins, and
// momentary goroutines that wake many subscribers. A subscriber owns no queue: it reads shared, bounded
// structures at its own pace, so a slow one costs nobody anything.
package api

import (
	"context"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Twins reads twins, wherever they are. What it returns is released state only: effects of inputs
// that are durable in the log. Messages belong to the caller, who may keep and change them.
type Twins interface {
	// Twin returns one twin, or host.ErrUnknownDevice.
	Twin(ctx context.Context, id string) (*doppelv1.Twin, error)
	// Twins returns those of the ids that exist, in any order. With a host.ErrUnavailable come those
	// that could be read.
	Twins(ctx context.Context, ids []string) ([]*doppelv1.Twin, error)
	// SelectTwins finds the first twins, in an order, of those that pass a filter.
	SelectTwins(ctx context.Context, q *host.Query) (*host.Selected, error)
	// AggregateTwins counts those that pass a filter, which is that of the request.
	AggregateTwins(ctx context.Context, match filter.Filter, req *doppelv1.AggregateTwinsRequest) (*doppelv1.AggregateTwinsResponse, error)
	// EachTwin calls fn, from the caller's goroutine, once for every twin that passes a filter, in any order
	// until fn returns false. fn may block (it writes to a network), so no partition may wait for it.
	EachTwin(ctx context.Context, match filter.Filter, fn func(*doppelv1.Twin) bool) error
	// Count is cheap and may lag a little.
	Count() (twins, online, openAlerts uint64)
}

// Past reads twins as they were, by folding the log again.
type Past interface {
	// TwinAsOf returns a twin of the past, host.ErrUnknownDevice if there was none, host.ErrFuture if
	// there is none yet, or host.ErrNotRetained.
	TwinAsOf(ctx context.Context, id string, at host.AsOf) (*doppelv1.Twin, error)
	// Replay compares the fold of a twin's log with what is recorded there and with the live twin.
	Replay(ctx context.Context, id string) (host.Replay, error)
}

// Alerts reads alerts. A transition that stands in the AlertLog must already be visible here.
type Alerts interface {
	// Alerts returns the open ones and those resolved within 24 h, in any order.
	Alerts(ctx context.Context) ([]*doppelv1.Alert, error)
	// Alert returns one of those, or host.ErrUnknownAlert.
	Alert(ctx context.Context, id string) (*doppelv1.Alert, error)
}

// Fleet tells how the nodes are doing.
type Fleet interface {
	Status(ctx context.Context) (*doppelv1.Status, error)
	// Audit checks the accounts; a deep one reads all that is stored.
	Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error)
}
