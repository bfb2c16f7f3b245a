package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// operator is a fleet of two nodes, one of which is being emptied.
type operator struct {
	doppelv1.UnimplementedFleetServiceServer
	left   atomic.Int32 // partitions that n2 has
	share  atomic.Int32 // how often it is looked before n2, then, has no MQTT share
	undone atomic.Bool
}

func (o *operator) GetStatus(context.Context, *doppelv1.GetStatusRequest) (*doppelv1.Status, error) {
	at := timestamppb.New(apitest.Epoch())
	s := &doppelv1.Status{
		Twins: 300, Online: 280, OpenAlerts: 2, SamplesPerSecond: 1234,
		Nodes: []*doppelv1.Node{
			{Id: "n1", Address: "10.0.0.1:7946", State: "serving", Version: "v1.2.0", Capacity: 2, Partitions: 3, Unacknowledged: 17, StartTime: at},
			{Id: "n2", Address: "10.0.0.2:7946", State: "draining", Version: "v1.2.0", Partitions: uint32(o.left.Load()), StartTime: at},
			{Id: "n3", Address: "10.0.0.3:7946", State: "unreachable", StartTime: at},
		},
		Partitions: []*doppelv1.Partition{
			{Id: 0, Owner: "n1", Epoch: 12, State: "serving", Twins: 100, QuestdbLag: 5},
			{Id: 1, State: "idle", MovingTo: "n1", IngestLag: 9},
		},
	}
	if o.left.Load() == 0 { // the last one has arrived
		if o.share.Add(-1) < 0 {
			s.Nodes[1].State = "drained"
		}
		s.Partitions[1] = &doppelv1.Partition{Id: 1, Owner: "n1", Epoch: 3, State: "serving"}
	}
	for i := range o.left.Load() {
		s.Partitions = append(s.Partitions, &doppelv1.Partition{Id: 2 + i, Owner: "n2", Epoch: 7, State: "serving", Twins: 50, IngestLag: 40, MovingTo: "n1"})
	}
	if o.left.Load() > 0 {
		o.left.Add(-1)
	}
	return s, nil
}

func (o *operator) DrainNode(_ context.Context, req *doppelv1.DrainNodeRequest) (*doppelv1.Node, error) {
	if req.GetId() != "n2" {
		return nil, status.Errorf(codes.NotFound, "there is no node %q", req.GetId())
	}
	o.undone.Store(req.GetUndo())
	return &doppelv1.Node{Id: "n2", State: "draining", Partitions: uint32(o.left.Load())}, nil
}

func operate(t *testing.T, o *operator) string {
	t.Helper()
	s := grpc.NewServer()
	doppelv1.RegisterFleetServiceServer(s, o)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestClusterStatus(t *testing.T) {
	o := &operator{}
	addr := operate(t, o)
	for _, format := range []string{"table", "json"} {
		o.left.Store(1)
		got := doppel(t.Context(), nil, "cluster", "status", "--addr", addr, "-o", format)
		if got.code != 0 || got.stderr != "" {
			t.Fatalf("exit code %d, stderr %q, %v", got.code, got.stderr, got.err)
		}
		golden(t, "cluster-status."+format, got.stdout)
	}
}

func TestClusterDrain(t *testing.T) {
	o := &operator{}
	addr := operate(t, o)
	o.left.Store(2)
	got := doppel(t.Context(), nil, "cluster", "drain", "n2", "--addr", addr)
	if want := "n2 is draining and has 2 partitions\n"; got.code != 0 || got.stdout != want || o.undone.Load() {
		t.Errorf("exit code %d, %q, want %q; %v", got.code, got.stdout, want, got.err)
	}
	got = doppel(t.Context(), nil, "cluster", "drain", "n2", "--wait", "--addr", addr)
	if want := "n2 is drained and has 0 partitions\n"; got.code != 0 || got.stdout != want || o.left.Load() != 0 {
		t.Errorf("exit code %d, %q, want %q; %v", got.code, got.stdout, want, got.err)
	}
	if got = doppel(t.Context(), nil, "cluster", "drain", "n2", "--undo", "--addr", addr); got.code != 0 || !o.undone.Load() {
		t.Errorf("undo: exit code %d, %v", got.code, got.err)
	}
	if got = doppel(t.Context(), nil, "cluster", "drain", "n9", "--addr", addr); got.code != 3 {
		t.Errorf("no such node: exit code %d, %v", got.code, got.err)
	}
	if got = doppel(t.Context(), nil, "cluster", "drain", "--addr", addr); got.code != 2 {
		t.Errorf("no node: exit code %d, %v", got.code, got.err)
	}
}

// TestCallsWaitOutAMove: a node that says when to try again is asked again, for as long as it takes; one
// that does not is given up on.
func TestCallsWaitOutAMove(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	fleet.Fail(fmt.Errorf("partition 3: %w", host.ErrUnavailable))
	const move = 4 * time.Second // longer than any number of blind attempts
	time.AfterFunc(move, func() { fleet.Fail(nil) })
	start := time.Now()
	if got := doppel(t.Context(), nil, "twin", "get", "pump-1", "--addr", addr); got.code != 0 || time.Since(start) < move {
		t.Errorf("exit code %d after %v: %v", got.code, time.Since(start), got.err)
	}
	fleet.Fail(host.ErrUnavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if got := doppel(ctx, nil, "twin", "get", "pump-1", "--addr", addr); got.code != 4 || !strings.Contains(message(got.err), "restored or moved") {
		t.Errorf("a move without end: exit code %d, %v", got.code, got.err)
	}
	fleet.Fail(errors.New("disk on fire"))
	if got := doppel(t.Context(), nil, "twin", "get", "pump-1", "--addr", addr); got.code != 1 {
		t.Errorf("what does not pass: exit code %d, %v", got.code, got.err)
	}
}

// TestSeveralNodes: the first that is there answers, and a watch goes on at another one.
func TestSeveralNodes(t *testing.T) {
	first, firstAddr, stop := serveNode(t)
	second, secondAddr, _ := serveNode(t)
	populate(first)
	populate(second)
	addr := "127.0.0.1:1, " + firstAddr + "," + secondAddr
	if got := doppel(t.Context(), nil, "twin", "get", "pump-1", "--addr", addr); got.code != 0 {
		t.Errorf("exit code %d, %v", got.code, got.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out lines
	ended := make(chan outcome, 1)
	go func() { ended <- doppel(ctx, &out, "alerts", "watch", "-o", "json", "--addr", addr) }()
	out.await(t, "snapshotDone")
	first.Transition(0x20, "pump-2", alert.Warning, alert.Firing)
	out.await(t, "0000000000000020")
	stop()
	second.Transition(0x20, "pump-2", alert.Warning, alert.Firing)
	second.Transition(0x21, "pump-3", alert.Warning, alert.Firing)
	out.await(t, "0000000000000021")
	cancel()
	if got := <-ended; got.code != 0 || !strings.Contains(got.stderr, "resuming") {
		t.Errorf("exit code %d, %q, %v", got.code, got.stderr, got.err)
	}
	if n := strings.Count(out.String(), `"id":"0000000000000020"`); n != 1 {
		t.Errorf("the transition came %d times, want once", n)
	}
	if got := doppel(t.Context(), nil, "twin", "list", "--addr", " , "); got.code != 2 {
		t.Errorf("no address: exit code %d, %v", got.code, got.err)
	}
}
