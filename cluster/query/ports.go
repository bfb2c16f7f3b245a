package query

import (
	"context"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Host is the partitions of this node; *host.Host implements it. Each question about a partition waits
// for the release of what it shows, and returns when ctx ends.
type Host interface {
	Partition(p int32) host.View
	Partitions() []host.View
	Stats() *host.Stats

	Devices(ctx context.Context, p int32) ([]string, error)
	Twins(ctx context.Context, p int32, devices []string) ([]*doppelv1.Twin, error)
	Select(ctx context.Context, p int32, q *host.Query) (*host.Selected, error)
	Summarize(ctx context.Context, p int32, f filter.Filter, by *selection.Grouping, to *selection.Groups) error
	TwinAsOf(ctx context.Context, p int32, device string, at host.AsOf) (*doppelv1.Twin, error)
	Replay(ctx context.Context, p int32, device string) (host.Replay, error)
	Reset(ctx context.Context, p int32, device string) error
	Update(ctx context.Context, p int32, u host.Update) (*doppelv1.Twin, error)
	Delete(ctx context.Context, p int32, device, etag string) error
	Alerts(ctx context.Context, p int32) ([]*doppelv1.Alert, error)
	Alert(ctx context.Context, p int32, id string) (*doppelv1.Alert, error)
	Acknowledge(ctx context.Context, p int32, device string, k alert.Acknowledgement) (*doppelv1.Alert, error)
	Explain(ctx context.Context, p int32, device, id string) (*doppelv1.ExplainAlertResponse, error)
	Backtest(ctx context.Context, p int32, t host.Backtest) (fired []*doppelv1.Alert, samples uint64, err error)
}
