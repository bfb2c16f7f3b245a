package api

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

type alertStream struct {
	t    *testing.T
	msgs chan *doppelv1.WatchAlertsResponse
	err  chan error
	stop context.CancelFunc
}

func (w *world) watchAlerts(t *testing.T, req *doppelv1.WatchAlertsRequest) *alertStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := w.alerts.WatchAlerts(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	as := &alertStream{t: t, msgs: make(chan *doppelv1.WatchAlertsResponse, 100_000), err: make(chan error, 1), stop: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.Recv()
			if err != nil {
				as.err <- err
				return
			}
			as.msgs <- m
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return as
}

func (s *alertStream) next() *doppelv1.WatchAlertsResponse {
	s.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case m := <-s.msgs:
			if m.GetResumeToken() == "" {
				s.t.Fatalf("no token on %v", m)
			}
			if m.GetHeartbeat() == nil {
				return m
			}
		case err := <-s.err:
			s.t.Fatalf("watch ended: %v", err)
		case <-timeout:
			s.t.Fatal("nothing came")
		}
	}
}

func (s *alertStream) snapshot() ([]string, string) {
	s.t.Helper()
	var ids []string
	for {
		m := s.next()
		switch e := m.GetEvent().(type) {
		case *doppelv1.WatchAlertsResponse_Snapshot:
			ids = append(ids, e.Snapshot.GetDevice())
		case *doppelv1.WatchAlertsResponse_SnapshotDone:
			return ids, m.GetResumeToken()
		default:
			s.t.Fatalf("in the snapshot: %v", m)
		}
	}
}

// transitions reads n transitions as DEVICE STATE, and the last token.
func (s *alertStream) transitions(n int) ([]string, string) {
	s.t.Helper()
	var got []string
	token := ""
	for range n {
		m := s.next()
		a := m.GetTransition()
		if a == nil {
			s.t.Fatalf("got %v, want a transition", m)
		}
		got = append(got, a.GetDevice()+" "+a.GetState().String())
		token = m.GetResumeToken()
	}
	return got, token
}

// tell puts a transition with a cause of its own into the log.
func (w *world) tell(p int32, offset int64, index int, device string, a alert.Alert) {
	w.log.Put(host.Published{Partition: p, Offset: offset, Index: index, Alert: codec.Alert(device, &a)})
}

func want[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWatchAlertsSnapshotThenTransitions(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Transition(2, "b", alert.Warning, alert.Firing)
	w.Transition(1, "a", alert.Critical, alert.Firing)
	w.Transition(3, "c", alert.Warning, alert.Resolved)
	w.Transition(4, "d", alert.Warning, alert.Pending)

	all := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{IncludePending: true})
	ids, _ := all.snapshot()
	want(t, ids, []string{"a", "b", "d"})
	fired := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	ids, _ = fired.snapshot()
	want(t, ids, []string{"a", "b"})

	w.Transition(5, "e", alert.Warning, alert.Pending)
	w.Transition(5, "e", alert.Warning, alert.Firing)
	w.Transition(5, "e", alert.Critical, alert.Firing)
	w.Transition(5, "e", alert.Critical, alert.Resolved)
	got, _ := all.transitions(4)
	want(t, got, []string{"e PENDING", "e FIRING", "e FIRING", "e RESOLVED"})
	got, _ = fired.transitions(3)
	want(t, got, []string{"e FIRING", "e FIRING", "e RESOLVED"})
}

// An alert that goes from pending to resolved never was one to those who don't ask for pending.
func TestWatchAlertsHidesWhatNeverFired(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	s.snapshot()
	w.tell(1, 1, 0, "a", alert.Alert{ID: 1, State: alert.Pending, Severity: alert.Warning})
	w.tell(1, 2, 0, "a", alert.Alert{ID: 1, State: alert.Resolved, Severity: alert.Warning})
	w.tell(1, 3, 0, "b", alert.Alert{ID: 2, State: alert.Firing, Severity: alert.Warning})
	got, _ := s.transitions(1)
	want(t, got, []string{"b FIRING"})
}

func TestWatchAlertsSelects(t *testing.T) {
	w := newWorld(t, HubConfig{})
	byDevice := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{Devices: []string{"a", "b"}})
	bySeverity := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{MinSeverity: doppelv1.Severity_CRITICAL})
	byFilter := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{Filter: `state == "FIRING" && device.startsWith("c")`})
	for _, s := range []*alertStream{byDevice, bySeverity, byFilter} {
		s.snapshot()
	}
	w.Transition(1, "a", alert.Warning, alert.Firing)
	w.Transition(2, "c1", alert.Critical, alert.Firing)
	w.Transition(2, "c1", alert.Critical, alert.Resolved)
	w.Transition(3, "c2", alert.Info, alert.Firing)
	w.Transition(4, "b", alert.Info, alert.Firing)
	got, _ := byDevice.transitions(2)
	want(t, got, []string{"a FIRING", "b FIRING"})
	got, _ = bySeverity.transitions(2)
	want(t, got, []string{"c1 FIRING", "c1 RESOLVED"})
	got, _ = byFilter.transitions(2)
	want(t, got, []string{"c1 FIRING", "c2 FIRING"})
}

// Nothing is merged: a subscriber sees each of many fast transitions once and in order.
func TestWatchAlertsSendsEach(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	s.snapshot()
	const n = 3000
	for i := range n {
		st := alert.Firing
		if i%2 == 1 {
			st = alert.Resolved
		}
		w.Transition(uint64(i/2), fmt.Sprintf("d%d", i/2), alert.Warning, st)
	}
	got, _ := s.transitions(n)
	for i, g := range got {
		if w := fmt.Sprintf("d%d %s", i/2, []string{"FIRING", "RESOLVED"}[i%2]); g != w {
			t.Fatalf("transition %d: got %s, want %s", i, g, w)
		}
	}
}

func TestWatchAlertsResumes(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	_, start := s.snapshot()
	w.Transition(1, "a", alert.Warning, alert.Firing)
	w.tell(9, 5, 0, "p9", alert.Alert{ID: 77, State: alert.Firing})
	w.tell(9, 5, 1, "p9", alert.Alert{ID: 77, State: alert.Resolved, FireTime: 1})
	_, middle := s.transitions(2)
	s.transitions(1)
	s.stop()
	<-s.err
	w.Transition(1, "a", alert.Warning, alert.Resolved)

	got, _ := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{ResumeToken: middle}).transitions(2)
	want(t, got, []string{"p9 RESOLVED", "a RESOLVED"})
	// The token of an empty stream is one, too.
	got, end := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{ResumeToken: start}).transitions(4)
	want(t, got, []string{"a FIRING", "p9 FIRING", "p9 RESOLVED", "a RESOLVED"})
	s = w.watchAlerts(t, &doppelv1.WatchAlertsRequest{ResumeToken: end})
	w.Transition(2, "b", alert.Warning, alert.Firing)
	got, _ = s.transitions(1)
	want(t, got, []string{"b FIRING"})
}

// A partition that was restored tells again what it told before; nobody hears it twice.
func TestTransitionsToldAgainAreLeftOut(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	s.snapshot()
	for _, offset := range []int64{1, 2, 1, 2, 3} {
		a := alert.Alert{ID: uint64(offset), State: alert.Firing}
		w.tell(4, offset, 0, fmt.Sprintf("d%d", offset), a)
	}
	got, _ := s.transitions(3)
	want(t, got, []string{"d1 FIRING", "d2 FIRING", "d3 FIRING"})
}

func TestWatchAlertsGap(t *testing.T) {
	w := newWorld(t, HubConfig{Transitions: 4})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	_, start := s.snapshot()
	for i := range 6 {
		w.Transition(uint64(i), fmt.Sprintf("d%d", i), alert.Warning, alert.Firing)
		s.transitions(1)
	}
	w.log.Trim(2)
	ahead := make(vector, apitest.Partitions)
	ahead[2].next = 1
	for name, token := range map[string]string{
		"no longer kept":   start,
		"another log":      alertsPlace{log: 1, seen: make(vector, apitest.Partitions)}.token(),
		"ahead":            alertsPlace{log: w.hub.log.Load(), seen: ahead}.token(),
		"other partitions": alertsPlace{log: w.hub.log.Load(), seen: make(vector, 3)}.token(),
	} {
		t.Run(name, func(t *testing.T) {
			s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{ResumeToken: token})
			m := s.next()
			if m.GetGap().GetReason() == "" {
				t.Fatalf("got %v, want a gap", m)
			}
			ids, token := s.snapshot()
			want(t, ids, []string{"d0", "d1", "d2", "d3", "d4", "d5"})
			if _, err := parseAlertsToken(token); err != nil {
				t.Error(err)
			}
			// Who is lost in the snapshot gets another one.
			again := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{ResumeToken: m.GetResumeToken()})
			ids, _ = again.snapshot()
			want(t, ids, []string{"d0", "d1", "d2", "d3", "d4", "d5"})
		})
	}
}

// A subscriber too slow for the ring still gets each transition: it reads the log until it has caught
// up, and nobody waits for it.
func TestWatchAlertsSlowSubscriber(t *testing.T) {
	const size = 64
	w := newWorld(t, HubConfig{Transitions: size})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow, err := w.alerts.WatchAlerts(ctx, &doppelv1.WatchAlertsRequest{Heartbeat: durationpb.New(5 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := slow.Recv(); err != nil || m.GetSnapshotDone() == nil {
		t.Fatal(m, err)
	}
	// More than any window of the connection holds.
	const n = 20_000
	start := time.Now()
	for i := range n {
		w.Transition(uint64(i), fmt.Sprintf("d%d", i), alert.Warning, alert.Firing)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("%d transitions took %v", n, d)
	}
	before := w.log.Reads()
	for i := range n {
		m, err := slow.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := m.GetTransition().GetDevice(), fmt.Sprintf("d%d", i); got != want {
			t.Fatalf("got %v, want the transition of %s", m, want)
		}
	}
	if w.log.Reads() == before {
		t.Error("the ring had all of it: the subscriber was not slow")
	}
}

func TestWatchAlertsIsPrompt(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	s.snapshot()
	// The median: a busy machine may well lose a while now and then.
	var took []time.Duration
	for i := range 201 {
		start := time.Now()
		w.Transition(uint64(i), "a", alert.Warning, alert.Firing)
		s.transitions(1)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 20*time.Millisecond {
		t.Errorf("half of the transitions took %v or more", median)
	}
}

func TestWatchAlertsHeartbeat(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{Heartbeat: durationpb.New(time.Second)})
	s.snapshot()
	select {
	case m := <-s.msgs:
		if m.GetHeartbeat() == nil || m.GetResumeToken() == "" {
			t.Errorf("got %v, want a heartbeat with a token", m)
		}
	case <-time.After(5 * time.Second):
		t.Error("no heartbeat")
	}
}

func TestWatchAlertsErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for name, tc := range map[string]struct {
		req   *doppelv1.WatchAlertsRequest
		field string
	}{
		"devices":       {&doppelv1.WatchAlertsRequest{Devices: []string{""}}, "devices"},
		"filter":        {&doppelv1.WatchAlertsRequest{Filter: "online"}, "filter"},
		"severity":      {&doppelv1.WatchAlertsRequest{MinSeverity: 9}, "min_severity"},
		"heartbeat":     {&doppelv1.WatchAlertsRequest{Heartbeat: durationpb.New(-1)}, "heartbeat"},
		"token":         {&doppelv1.WatchAlertsRequest{ResumeToken: "abc"}, "resume_token"},
		"twins' token":  {&doppelv1.WatchAlertsRequest{ResumeToken: twinsPlace{1, 2, false}.token()}, "resume_token"},
		"token, longer": {&doppelv1.WatchAlertsRequest{ResumeToken: sealToken(tokenAlerts, make([]byte, 40))}, "resume_token"},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.watchAlerts(t, tc.req)
			wantCode(t, <-s.err, codes.InvalidArgument, tc.field)
		})
	}
}

// Whatever a client sends as a token, it is refused or understood.
func FuzzTokens(f *testing.F) {
	f.Add(twinsPlace{1, 2, true}.token())
	f.Add(alertsPlace{1, vector{{next: 1, at: nowhere}, {next: 300, at: place{7, 2}}}, false}.token())
	f.Fuzz(func(t *testing.T, token string) {
		if p, err := parseTwinsToken(token); err == nil && p.token() != token {
			t.Errorf("twins: %q is not what it was", token)
		}
		_, _ = parseAlertsToken(token)
		_, _ = newPage[*doppelv1.Twin](selection.Order{}, "", 1, token)
	})
}
