// Package apitest is a fleet in memory behind the ports of gateway/api, for the tests of the doors.
package apitest

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Epoch is when everything here happens.
func Epoch() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) }

// Fleet implements the ports in memory. A change is visible before the watchers hear of it, as the
// ports demand. Safe for concurrent use.
type Fleet struct {
	watchers host.Watchers
	log      *AlertLog

	mu     sync.Mutex
	twins  map[string]*doppelv1.Twin
	alerts map[string]*doppelv1.Alert
	offset int64
	err    error         // what every read fails with
	block  chan struct{} // non-nil: reads wait for it or for their context
	panics bool

	waiting atomic.Int64

	difference string    // what audits and replays find
	retained   int64     // what History says of it
	since      time.Time // History begins; zero: Epoch

	acknowledged time.Duration // how often alerts were acknowledged
	rules        rules
}

// NewFleet returns an empty fleet that tells w what changes, and l of alerts.
func NewFleet(w host.Watchers, l *AlertLog) *Fleet {
	return &Fleet{watchers: w, log: l, twins: map[string]*doppelv1.Twin{}, alerts: map[string]*doppelv1.Alert{}, rules: rules{list: []*doppelv1.Rule{{Id: "builtin.zscore"}, {Id: "builtin.offline"}}}}
}

func (f *Fleet) enter(ctx context.Context) error {
	f.mu.Lock()
	block, err, panics := f.block, f.err, f.panics
	f.mu.Unlock()
	if panics {
		panic("port panicked")
	}
	if block != nil {
		f.waiting.Add(1)
		defer f.waiting.Add(-1)
		select {
		case <-block:
		case <-ctx.Done():
			return fmt.Errorf("read twins: %w", ctx.Err())
		}
	}
	return err
}

// Twin implements api.Twins.
func (f *Fleet) Twin(ctx context.Context, id string) (*doppelv1.Twin, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.twins[id]
	if !ok {
		return nil, fmt.Errorf("get %q: %w", id, host.ErrUnknownDevice)
	}
	return proto.CloneOf(t), nil
}

// Twins implements api.Twins.
func (f *Fleet) Twins(ctx context.Context, ids []string) ([]*doppelv1.Twin, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*doppelv1.Twin
	for _, id := range ids {
		if t, ok := f.twins[id]; ok {
			out = append(out, proto.CloneOf(t))
		}
	}
	return out, nil
}

// EachTwin implements api.Twins.
func (f *Fleet) EachTwin(ctx context.Context, match filter.Filter, fn func(*doppelv1.Twin) bool) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	var all []*doppelv1.Twin
	for _, t := range f.twins {
		all = append(all, proto.CloneOf(t))
	}
	f.mu.Unlock()
	for _, t := range all {
		ok, err := match.Matches(t)
		if err != nil {
			return err
		}
		if ok && !fn(t) {
			return nil
		}
	}
	return nil
}

// SelectTwins implements api.Twins.
func (f *Fleet) SelectTwins(ctx context.Context, q *host.Query) (*host.Selected, error) {
	got := &host.Selected{}
	first := selection.NewFirst[*doppelv1.Twin](q.Order, q.Limit, q.After)
	err := f.EachTwin(ctx, q.Filter, func(t *doppelv1.Twin) bool {
		got.Count++
		first.Add(q.Order.KeyOf(t, t.GetId()), t)
		return true
	})
	items, more := first.Result()
	got.More = more
	for _, i := range items {
		got.Keys, got.Twins = append(got.Keys, i.Key), append(got.Twins, i.Value)
	}
	return got, err
}

// AggregateTwins implements api.Twins.
func (f *Fleet) AggregateTwins(ctx context.Context, match filter.Filter, req *doppelv1.AggregateTwinsRequest) (*doppelv1.AggregateTwinsResponse, error) {
	by, err := selection.ParseGrouping(req)
	if err != nil {
		return nil, err
	}
	groups := selection.NewGroups(by)
	err = f.EachTwin(ctx, match, func(t *doppelv1.Twin) bool {
		value := map[selection.GroupKind]string{
			selection.ByTag: t.GetTags()[by.Tag], selection.ByOwner: t.GetOwner(),
			selection.ByOnline: strconv.FormatBool(t.GetOnline()), selection.ByQuarantined: strconv.FormatBool(t.GetQuarantined()),
		}[by.Kind]
		groups.Add(value, func(metric string) (float64, bool) {
			m, ok := t.GetMetrics()[metric]
			return m.GetValue(), ok
		})
		return true
	})
	return groups.Response(), err
}

// Count implements api.Twins.
func (f *Fleet) Count() (twins, online, openAlerts uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.twins {
		if t.GetOnline() {
			online++
		}
	}
	for _, a := range f.alerts {
		if a.GetState() == doppelv1.AlertState_FIRING {
			openAlerts++
		}
	}
	return uint64(len(f.twins)), online, openAlerts
}

// Alerts implements api.Alerts.
func (f *Fleet) Alerts(ctx context.Context) ([]*doppelv1.Alert, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*doppelv1.Alert
	for _, a := range f.alerts {
		out = append(out, proto.CloneOf(a))
	}
	return out, nil
}

// Alert implements api.Alerts.
func (f *Fleet) Alert(ctx context.Context, id string) (*doppelv1.Alert, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.alerts[id]
	if !ok {
		return nil, host.ErrUnknownAlert
	}
	return proto.CloneOf(a), nil
}

// Status implements api.Fleet.
func (f *Fleet) Status(ctx context.Context) (*doppelv1.Status, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	twins, online, open := f.Count()
	return &doppelv1.Status{
		Nodes: []*doppelv1.Node{{Id: "n1", State: "ready"}},
		Twins: twins, Online: online, OpenAlerts: open, SamplesPerSecond: 12_500 + 400*math.Sin(float64(time.Now().Unix())),
	}, nil
}

// Audit implements api.Fleet.
func (f *Fleet) Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	a := &doppelv1.Audit{
		Balanced: true, Totals: &doppelv1.Counters{Applied: 5, Duplicate: 1, Held: 1}, Received: 7, Twins: &doppelv1.Counters{Applied: 25, Late: 2, Held: 1},
		Partitions: []*doppelv1.PartitionAudit{{Id: 0, Twins: 2, StateHash: 0x0123456789abcdef, NextOffset: 41}},
	}
	if deep {
		a.Log = &doppelv1.LogAudit{Records: 40, Void: 1, Refused: 1, DeadLetters: 3, Whole: true}
		a.Rows = &doppelv1.RowsAudit{Rows: 27, Samples: 27, Lag: 2}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.difference != "" {
		a.Balanced, a.Difference = false, f.difference
	}
	return a, nil
}

// TwinAsOf implements api.Past: a twin got a version a second since Epoch, and the first two are
// forgotten.
func (f *Fleet) TwinAsOf(ctx context.Context, id string, at host.AsOf) (*doppelv1.Twin, error) {
	t, err := f.Twin(ctx, id)
	if err != nil {
		return nil, err
	}
	since := time.Unix(0, at.Time).Sub(Epoch())
	switch {
	case at.Version > 0:
	case since < 0:
		return nil, fmt.Errorf("twin %q: %w", id, host.ErrUnknownDevice)
	default:
		at.Version = uint64(since / time.Second)
	}
	switch {
	case at.Version > t.GetVersion():
		return nil, fmt.Errorf("twin %q: %w", id, host.ErrFuture)
	case at.Version < 3:
		return nil, fmt.Errorf("twin %q: %w", id, host.ErrNotRetained)
	}
	past := Twin(id, int(at.Version))
	past.Owner = "n0"
	return past, nil
}

// Replay implements api.Past.
func (f *Fleet) Replay(ctx context.Context, id string) (host.Replay, error) {
	t, err := f.Twin(ctx, id)
	if err != nil {
		return host.Replay{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return host.Replay{
		Equal: f.difference == "", Difference: f.difference, Start: host.FoldStart{Kind: "anchor", Offset: 12, Version: 3},
		Next: 41, Inputs: t.GetVersion() - 3, Version: t.GetVersion(), Hash: 0x0123456789abcdef,
	}, nil
}

// Differ makes audits and replays find a difference; empty: no more.
func (f *Fleet) Differ(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.difference = what
}

// Reset implements api.Resets.
func (f *Fleet) Reset(ctx context.Context, id string) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.twins[id]
	if !ok {
		return fmt.Errorf("reset %q: %w", id, host.ErrUnknownDevice)
	}
	t = proto.CloneOf(t)
	t.Quarantined = false
	f.twins[id] = t
	return nil
}

// Put makes or replaces a twin and tells the hub, as a partition would.
func (f *Fleet) Put(t *doppelv1.Twin) {
	f.mu.Lock()
	f.twins[t.GetId()] = t
	f.mu.Unlock()
	f.changed(t.GetId())
}

// Remove deletes a twin.
func (f *Fleet) Remove(id string) {
	f.mu.Lock()
	delete(f.twins, id)
	f.mu.Unlock()
	f.changed(id)
}

func (f *Fleet) changed(id string) {
	if f.watchers.TwinsWatched() {
		f.watchers.TwinChanged(0, id, 1)
	}
}

// Transition makes an alert transition of a builtin.zscore alert on temperature.
func (f *Fleet) Transition(n uint64, device string, sev alert.Severity, st alert.State) {
	a := alert.Alert{
		ID: n, Rule: "builtin.zscore", Metric: "temperature", Severity: sev, State: st,
		CreateTime: Epoch().Add(time.Duration(n) * time.Second).UnixNano(), UpdateTime: Epoch().UnixNano(),
	}
	if st != alert.Pending {
		a.FireTime = a.CreateTime
	}
	f.Alarm(device, a)
}

// Alarm makes an alert transition in partition 3.
func (f *Fleet) Alarm(device string, a alert.Alert) {
	f.mu.Lock()
	f.offset++
	f.alerts[codec.AlertID(a.ID)] = codec.Alert(device, &a)
	offset := f.offset
	f.mu.Unlock()
	f.log.Put(host.Published{Partition: 3, Offset: offset, Alert: codec.Alert(device, &a)})
}

// Fail makes every read fail with err, nil: no more.
func (f *Fleet) Fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
}

// Block makes every read wait for its context.
func (f *Fleet) Block() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.block = make(chan struct{})
}

// Waiting is how many reads wait.
func (f *Fleet) Waiting() int { return int(f.waiting.Load()) }

// Panic makes every read panic, or no more.
func (f *Fleet) Panic(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.panics = on
}

// Twin is a twin with something in most fields.
func Twin(id string, n int) *doppelv1.Twin {
	return &doppelv1.Twin{
		Id: id, Version: uint64(n), Boot: 2, Seq: uint64(n), Online: n%2 == 0,
		LastSeen:   timestamppb.New(Epoch().Add(time.Duration(n) * time.Second)),
		CreateTime: timestamppb.New(Epoch()),
		Tags:       map[string]string{"site": "brno", "line": strconv.Itoa(n % 3)},
		Metrics: map[string]*doppelv1.Metric{
			"temperature": {Value: float64(n), Mean: 20, Stddev: 2, Count: 64, Z: new(1.5)},
			"vibration":   {Value: 0.25},
		},
		Reported: &structpb.Struct{Fields: map[string]*structpb.Value{
			"firmware": structpb.NewStringValue("1.2.3"),
			"radio": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
				"rssi": structpb.NewNumberValue(-70), "channel": structpb.NewNumberValue(11),
			}}),
		}},
		Counters: &doppelv1.Counters{Applied: uint64(n), Gaps: 1},
	}
}
