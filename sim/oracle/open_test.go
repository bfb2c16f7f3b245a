package oracle

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
	"github.com/doppel-iot/doppel/sim/fleet"
)

// fakeNode serves twins that the test sets, and sends alerts that the test gives.
type fakeNode struct {
	doppelv1.UnimplementedTwinServiceServer
	doppelv1.UnimplementedAlertServiceServer

	mu     sync.Mutex
	twins  map[string]*doppelv1.Twin
	alerts chan *doppelv1.Alert
}

func (n *fakeNode) BatchGetTwins(_ context.Context, r *doppelv1.BatchGetTwinsRequest) (*doppelv1.BatchGetTwinsResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := &doppelv1.BatchGetTwinsResponse{}
	for _, id := range r.GetIds() {
		if t := n.twins[id]; t != nil {
			out.Twins = append(out.Twins, t)
		} else {
			out.MissingIds = append(out.MissingIds, id)
		}
	}
	return out, nil
}

func (n *fakeNode) WatchAlerts(_ *doppelv1.WatchAlertsRequest, s doppelv1.AlertService_WatchAlertsServer) error {
	open := &doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Snapshot{
		Snapshot: &doppelv1.Alert{Id: "old", Device: "d1", Metric: "a"},
	}}
	done := &doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_SnapshotDone{}}
	for _, m := range []*doppelv1.WatchAlertsResponse{open, done} {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	for {
		select {
		case <-s.Context().Done():
			return nil
		case a := <-n.alerts:
			if err := s.Send(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Transition{Transition: a}}); err != nil {
				return err
			}
		}
	}
}

// A whole check over gRPC: one device was there before, one is new, one is lost.
func TestCheck(t *testing.T) {
	t.Parallel()
	node := &fakeNode{alerts: make(chan *doppelv1.Alert), twins: map[string]*doppelv1.Twin{
		"d1": {Id: "d1", Digest: 7, SetDigest: 8, Counters: &doppelv1.Counters{Applied: 100}},
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	doppelv1.RegisterTwinServiceServer(server, node)
	doppelv1.RegisterAlertServiceServer(server, node)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	o, err := Open(t.Context(), Config{
		GRPC: "127.0.0.1:1, " + listener.Addr().String(), HTTP: "127.0.0.1:1", Boot: boot, // the first is away
		IDs: []string{"d1", "d2", "d3"}, Interval: time.Second, Verify: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if digest, set := o.Base("d1"); digest != 7 || set != 8 {
		t.Errorf("base %d, %d", digest, set)
	}
	for i := range 3 {
		o.Observer().Sent(i, 1, 10, time.Now().UnixNano())
	}
	for _, id := range []string{"old", "new"} {
		node.alerts <- &doppelv1.Alert{Id: id, Device: "d1", Metric: "a", State: doppelv1.AlertState_FIRING, Boot: boot, Seq: 5}
	}
	node.mu.Lock()
	node.twins = map[string]*doppelv1.Twin{
		"d1": {Id: "d1", Digest: 0xd, SetDigest: 0x5, Counters: &doppelv1.Counters{Applied: 110}},
		"d2": {Id: "d2", Digest: 0xd, SetDigest: 0x5, Counters: &doppelv1.Counters{Applied: 12}},
	}
	node.mu.Unlock()

	// The third twin never comes; the deadline of the context spares the test the whole wait.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	devices := []Device{sent(), sent(), sent()}
	devices[0].Labels = []device.Label{{Kind: device.Spike, Metric: "a", First: 4, Last: 6}}
	devices[1].ID = "d2"
	r := &Report{}
	o.Check(ctx, r, devices[:2], &fleet.Progress{Acked: 20, Messages: 20})
	if r.Duplicated != 2 || r.Lost != 0 || r.DigestMismatches != 0 || !r.Verified || r.NodeCPU != nil || len(r.Skipped) != 2 {
		t.Errorf("report %+v", r)
	}
	if a := r.Alerts; a == nil || a.TruePositive != 1 || a.FalsePositive != 0 || r.LatencyMS.Alert == nil {
		t.Errorf("alerts %+v", r.Alerts)
	}

	devices[2].ID = "d3"
	r = &Report{}
	o.Check(ctx, r, devices[2:], &fleet.Progress{})
	if len(r.Findings) != 1 {
		t.Errorf("findings %v, want that the twins could not be read in time", r.Findings)
	}
}

func TestOpenWithoutNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Config{GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:1", IDs: []string{"d1"}, Verify: true}); err == nil {
		t.Error("no error though there is no node")
	}
	o, err := Open(ctx, Config{HTTP: "127.0.0.1:1"})
	if err != nil {
		t.Fatalf("without verify: %v", err)
	}
	defer o.Close()
	r := &Report{}
	o.Check(ctx, r, nil, &fleet.Progress{Messages: 1})
	if r.Verified || r.NodeCPU != nil || len(r.Skipped) != 1 || o.Observer() != nil {
		t.Errorf("report %+v", r)
	}
}
