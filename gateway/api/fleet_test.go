package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when everything in these tests happens.
var epoch = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// fleet implements the ports in memory. A change is visible before the hub hears of it, as the
// ports demand.
type fleet struct {
	hub *Hub

	mu     sync.Mutex
	twins  map[string]*doppelv1.Twin
	alerts map[string]*doppelv1.Alert
	offset int64
	err    error         // what every read fails with
	block  chan struct{} // non-nil: reads wait for it or for their context
	panics bool
	reads  int // calls of Twins
}

func newFleet(hub *Hub) *fleet {
	return &fleet{hub: hub, twins: map[string]*doppelv1.Twin{}, alerts: map[string]*doppelv1.Alert{}}
}

func (f *fleet) enter(ctx context.Context) error {
	f.mu.Lock()
	block, err, panics := f.block, f.err, f.panics
	f.mu.Unlock()
	if panics {
		panic("port panicked")
	}
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return fmt.Errorf("read twins: %w", ctx.Err())
		}
	}
	return err
}

func (f *fleet) Twin(ctx context.Context, id string) (*doppelv1.Twin, error) {
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

func (f *fleet) Twins(ctx context.Context, ids []string) ([]*doppelv1.Twin, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	var out []*doppelv1.Twin
	for _, id := range ids {
		if t, ok := f.twins[id]; ok {
			out = append(out, proto.CloneOf(t))
		}
	}
	return out, nil
}

func (f *fleet) EachTwin(ctx context.Context, fn func(*doppelv1.Twin) bool) error {
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
		if !fn(t) {
			return nil
		}
	}
	return nil
}

func (f *fleet) Count() (twins, online, openAlerts uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.twins)), 0, uint64(len(f.alerts))
}

func (f *fleet) Alerts(ctx context.Context) ([]*doppelv1.Alert, error) {
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

func (f *fleet) Alert(ctx context.Context, id string) (*doppelv1.Alert, error) {
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

func (f *fleet) Status(ctx context.Context) (*doppelv1.Status, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	n, _, _ := f.Count()
	return &doppelv1.Status{Twins: n, SamplesPerSecond: 12.5}, nil
}

func (f *fleet) Audit(ctx context.Context) (*doppelv1.Audit, error) {
	return &doppelv1.Audit{Balanced: true, Received: 7}, f.enter(ctx)
}

func (f *fleet) Rules(context.Context) ([]*doppelv1.Rule, error) {
	return []*doppelv1.Rule{{Id: "builtin.zscore"}, {Id: "builtin.offline"}}, nil
}

// put makes or replaces a twin and tells the hub, as a partition would.
func (f *fleet) put(t *doppelv1.Twin) {
	f.mu.Lock()
	f.twins[t.GetId()] = t
	f.mu.Unlock()
	f.changed(t.GetId())
}

func (f *fleet) remove(id string) {
	f.mu.Lock()
	delete(f.twins, id)
	f.mu.Unlock()
	f.changed(id)
}

func (f *fleet) changed(id string) {
	if f.hub.TwinsWatched() {
		f.hub.TwinChanged(0, id, 1)
	}
}

// transition makes an alert transition in partition 3 and tells the hub.
func (f *fleet) transition(n uint64, device string, sev alert.Severity, st alert.State) {
	a := alert.Alert{
		ID: n, Rule: "builtin.zscore", Metric: "temperature", Severity: sev, State: st,
		CreateTime: epoch.Add(time.Duration(n) * time.Second).UnixNano(), UpdateTime: epoch.UnixNano(),
	}
	if st != alert.Pending {
		a.FireTime = a.CreateTime
	}
	f.mu.Lock()
	f.offset++
	f.alerts[codec.AlertID(n)] = codec.Alert(device, &a)
	tr := host.Transition{Partition: 3, Offset: f.offset, Device: device, Alert: a}
	f.mu.Unlock()
	f.hub.AlertChanged(&tr)
}

func (f *fleet) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
}

// twinOf is a twin with something in most fields.
func twinOf(id string, n int) *doppelv1.Twin {
	return &doppelv1.Twin{
		Id: id, Version: uint64(n), Boot: 2, Seq: uint64(n), Online: n%2 == 0,
		LastSeen:   timestamppb.New(epoch.Add(time.Duration(n) * time.Second)),
		CreateTime: timestamppb.New(epoch),
		Tags:       map[string]string{"site": "brno", "line": fmt.Sprint(n % 3)},
		Metrics: map[string]*doppelv1.Metric{
			"temperature": {Value: float64(n), Mean: 20, Stddev: 2, Count: 64, Z: proto.Float64(1.5)},
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

// world is a served API over a fleet.
type world struct {
	*fleet
	api    *API
	conn   *grpc.ClientConn
	twins  doppelv1.TwinServiceClient
	alerts doppelv1.AlertServiceClient
}

func newWorld(t *testing.T, cfg HubConfig) *world {
	t.Helper()
	hub := NewHub(cfg)
	f := newFleet(hub)
	a, err := New(Config{Twins: f, Alerts: f, Fleet: f, Rules: f, Hub: hub, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv := a.Server()
	lis := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hub.Close()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.GracefulStop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &world{
		fleet: f, api: a, conn: conn,
		twins: doppelv1.NewTwinServiceClient(conn), alerts: doppelv1.NewAlertServiceClient(conn),
	}
}

// eventually polls cond for at most ten seconds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
