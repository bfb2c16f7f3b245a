package fault

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// stub is a node that gives two transitions of one story to each who asks, and then ends the stream; a token
// is the number of the last one. Its twins are stale or not, and it counts acknowledgements.
type stub struct {
	doppelv1.UnimplementedAlertServiceServer
	doppelv1.UnimplementedTwinServiceServer

	length int
	mute   bool // it says nothing instead
	stale  atomic.Bool
	acked  atomic.Int64
}

// WatchAlerts implements the service.
func (s *stub) WatchAlerts(r *doppelv1.WatchAlertsRequest, stream doppelv1.AlertService_WatchAlertsServer) error {
	if s.mute {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	from, _ := strconv.Atoi(r.GetResumeToken())
	for i := from + 1; i <= min(from+2, s.length); i++ {
		a := &doppelv1.Alert{Device: "a", Id: strconv.Itoa(i)}
		m := &doppelv1.WatchAlertsResponse{ResumeToken: strconv.Itoa(i), Event: &doppelv1.WatchAlertsResponse_Transition{Transition: a}}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if from >= s.length {
		m := &doppelv1.WatchAlertsResponse{ResumeToken: r.GetResumeToken(), Event: &doppelv1.WatchAlertsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}}}
		if err := stream.Send(m); err != nil {
			return err
		}
		<-stream.Context().Done()
	}
	return status.Error(codes.Unavailable, "this node leaves")
}

// GetTwin implements the service.
func (s *stub) GetTwin(_ context.Context, r *doppelv1.GetTwinRequest) (*doppelv1.Twin, error) {
	if r.GetId() == "nobody" {
		return nil, status.Error(codes.NotFound, "no such device")
	}
	return &doppelv1.Twin{Id: r.GetId(), Stale: s.stale.Load()}, nil
}

// serve makes it answer.
func (s *stub) serve(t *testing.T) *live {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	doppelv1.RegisterAlertServiceServer(server, s)
	doppelv1.RegisterTwinServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "doppel_stage_seconds_count{stage=\"puback\"} %d\n", s.acked.Load())
	}))
	t.Cleanup(web.Close)
	n, err := dialNode(l.Addr().String(), strings.TrimPrefix(web.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// TestSubscriberGoesOn: where a node ends the stream or falls silent, it is resumed at the next one.
func TestSubscriberGoesOn(t *testing.T) {
	nodes := []*live{(&stub{length: 7}).serve(t), (&stub{mute: true}).serve(t), (&stub{length: 7}).serve(t)}
	a := newAudience(t.Context(), nodes, 1)
	s := a.members[0]
	if !await(t.Context(), 10*subscriberLimit, func() bool { return s.so().count >= 7 }) {
		t.Errorf("heard %d of 7", s.so().count)
	}
	a.close()
	h := s.so()
	var got []string
	for _, a := range h.stories["a"] {
		got = append(got, a.GetId())
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "4", "5", "6", "7"}, got); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	if h.again < 4 {
		t.Errorf("went on %d times, want at least 4", h.again)
	}
}

// TestWitness: twins that do not say that they may be behind, reads that fail, and acknowledgements without
// Kafka are told.
func TestWitness(t *testing.T) {
	for name, c := range map[string]struct {
		ids   []string
		stale bool
		acks  bool
		says  string
	}{
		"all is well":         {[]string{"a"}, true, false, ""},
		"not marked":          {[]string{"a"}, false, false, "a is not marked stale"},
		"not readable":        {[]string{"nobody"}, true, false, "read nobody: "},
		"acknowledged anyway": {[]string{"a"}, true, true, "messages were acknowledged without Kafka"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stub{}
			s.stale.Store(c.stale)
			s.acked.Store(1)
			w := &witness{nodes: []*live{s.serve(t)}, ids: c.ids}
			ctx, cancel := context.WithCancel(t.Context())
			if c.acks {
				go func() {
					for ctx.Err() == nil {
						s.acked.Add(1)
						sleep(ctx, 10*time.Millisecond)
					}
				}()
			}
			err := w.look(ctx, staleWithin+3*readLimit)
			cancel()
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
		})
	}
}
