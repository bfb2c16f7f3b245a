package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// twinStream reads a watch on its own goroutine, so that tests can wait with a limit.
type twinStream struct {
	t    *testing.T
	msgs chan *doppelv1.WatchTwinsResponse
	err  chan error
	stop context.CancelFunc
}

func (w *world) watchTwins(t *testing.T, req *doppelv1.WatchTwinsRequest) *twinStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := w.twins.WatchTwins(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	ts := &twinStream{t: t, msgs: make(chan *doppelv1.WatchTwinsResponse, 100_000), err: make(chan error, 1), stop: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.Recv()
			if err != nil {
				ts.err <- err
				return
			}
			ts.msgs <- m
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return ts
}

// next returns the next message, heartbeats left out.
func (s *twinStream) next() *doppelv1.WatchTwinsResponse {
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

// snapshot reads up to snapshot_done and returns the ids, and the token there.
func (s *twinStream) snapshot() (map[string]bool, string) {
	s.t.Helper()
	ids := map[string]bool{}
	for {
		m := s.next()
		switch e := m.GetEvent().(type) {
		case *doppelv1.WatchTwinsResponse_Snapshot:
			ids[e.Snapshot.GetId()] = true
		case *doppelv1.WatchTwinsResponse_SnapshotDone:
			return ids, m.GetResumeToken()
		default:
			s.t.Fatalf("in the snapshot: %v", m)
		}
	}
}

func TestWatchTwinsSnapshotThenChanges(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	w.Put(apitest.Twin("b", 2))
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{ReadMask: maskOf("id", "seq")})
	ids, _ := s.snapshot()
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true}, ids); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	w.Put(apitest.Twin("a", 9))
	m := s.next().GetChanged()
	if m.GetId() != "a" || m.GetSeq() != 9 || m.GetTags() != nil {
		t.Errorf("got %v, want a at 9, masked", m)
	}
	w.Put(apitest.Twin("c", 3))
	if m := s.next().GetChanged(); m.GetId() != "c" {
		t.Errorf("got %v, want c", m)
	}
	w.Remove("c")
	if got := s.next().GetDeletedId(); got != "c" {
		t.Errorf("got %q, want c deleted", got)
	}
}

func TestWatchTwinsByIDAndFilter(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 2))
	w.Put(apitest.Twin("b", 2))
	byID := w.watchTwins(t, &doppelv1.WatchTwinsRequest{Ids: []string{"b", "later", "b"}})
	if ids, _ := byID.snapshot(); len(ids) != 1 || !ids["b"] {
		t.Errorf("got %v, want b", ids)
	}
	byFilter := w.watchTwins(t, &doppelv1.WatchTwinsRequest{Filter: `online && metrics.temperature.value > 10`})
	if ids, _ := byFilter.snapshot(); len(ids) != 0 {
		t.Errorf("got %v, want none", ids)
	}
	w.Put(apitest.Twin("a", 11)) // offline
	w.Put(apitest.Twin("a", 12))
	w.Put(apitest.Twin("later", 1))
	w.Put(apitest.Twin("b", 14))
	if m := byID.next().GetChanged(); m.GetId() != "later" && m.GetId() != "b" {
		t.Errorf("got %v, want later or b", m)
	}
	got := map[string]uint64{}
	for len(got) < 2 {
		m := byFilter.next().GetChanged()
		got[m.GetId()] = m.GetSeq()
	}
	if diff := cmp.Diff(map[string]uint64{"a": 12, "b": 14}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The first change goes out at once, the next ones merged, and the last state always arrives.
func TestWatchTwinsMerges(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 0))
	// The first change does not wait for a round; a busy machine gets several tries.
	quickest := time.Hour
	for try := uint64(1); try <= 5 && quickest > watchPace/2; try++ {
		s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
		s.snapshot()
		start := time.Now()
		w.Put(apitest.Twin("a", int(try)))
		if m := s.next().GetChanged(); m.GetSeq() != try {
			t.Fatalf("got %v, want %d", m, try)
		}
		quickest = min(quickest, time.Since(start))
		s.stop()
	}
	if quickest > watchPace/2 {
		t.Errorf("the first change took %v", quickest)
	}
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
	s.snapshot()
	start := time.Now()
	const changes = 5000
	for i := 2; i <= changes; i++ {
		w.Put(apitest.Twin("a", i))
	}
	burst := time.Since(start)
	messages := 0
	for last := uint64(0); last < changes; messages++ {
		m := s.next().GetChanged()
		if m.GetSeq() < last {
			t.Fatalf("went back from %d to %d", last, m.GetSeq())
		}
		last = m.GetSeq()
	}
	if limit := int(burst/watchPace) + 3; messages > limit {
		t.Errorf("%d messages in %v, want at most %d", messages, burst, limit)
	}
}

func TestWatchTwinsResumes(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 20 {
		w.Put(apitest.Twin(fmt.Sprintf("d%02d", i), 0))
	}
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
	_, token := s.snapshot()
	s.stop()
	<-s.err
	w.Put(apitest.Twin("d03", 1))
	w.Put(apitest.Twin("d07", 1))
	s = w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: token})
	got := map[string]bool{}
	for len(got) < 2 {
		m := s.next()
		got[m.GetChanged().GetId()] = true
		token = m.GetResumeToken()
	}
	if diff := cmp.Diff(map[string]bool{"d03": true, "d07": true}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	s.stop()
	<-s.err
	// The token of a round's last message covers the round: nothing comes twice.
	w.Put(apitest.Twin("d09", 1))
	s = w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: token})
	if m := s.next().GetChanged(); m.GetId() != "d09" {
		t.Errorf("got %v, want d09 only", m)
	}
}

func TestWatchTwinsGap(t *testing.T) {
	w := newWorld(t, HubConfig{Linger: time.Millisecond})
	w.Put(apitest.Twin("a", 1))
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
	_, token := s.snapshot()
	s.stop()
	<-s.err
	eventually(t, "changes are no longer recorded", func() bool { return !w.hub.TwinsWatched() })
	w.Put(apitest.Twin("a", 2))

	other := NewHub(HubConfig{})
	for name, token := range map[string]string{
		"unrecorded":        token,
		"other incarnation": twinsPlace{other.incarnation, 1, false}.token(),
		"from the future":   twinsPlace{w.hub.incarnation, 1 << 40, false}.token(),
	} {
		t.Run(name, func(t *testing.T) {
			s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: token})
			if m := s.next(); m.GetGap() == nil || m.GetGap().GetReason() == "" {
				t.Fatalf("got %v, want a gap", m)
			}
			if ids, _ := s.snapshot(); len(ids) != 1 {
				t.Errorf("got %v, want a", ids)
			}
			w.Put(apitest.Twin("a", 3))
			if m := s.next().GetChanged(); m.GetSeq() != 3 {
				t.Errorf("got %v, want a at 3", m)
			}
		})
	}
}

func TestWatchTwinsHeartbeat(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{Heartbeat: durationpb.New(time.Second)})
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

func TestHeartbeatBounds(t *testing.T) {
	for _, tc := range []struct {
		in   *durationpb.Duration
		want time.Duration
	}{
		{nil, 10 * time.Second},
		{durationpb.New(0), 10 * time.Second},
		{durationpb.New(time.Millisecond), time.Second},
		{durationpb.New(7 * time.Second), 7 * time.Second},
		{durationpb.New(time.Hour), 5 * time.Minute},
	} {
		if got, err := heartbeatOf(tc.in); err != nil || got != tc.want {
			t.Errorf("%v: got %v, %v; want %v", tc.in, got, err, tc.want)
		}
	}
}

func TestWatchTwinsErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for name, tc := range map[string]struct {
		req   *doppelv1.WatchTwinsRequest
		field string
	}{
		"ids":           {&doppelv1.WatchTwinsRequest{Ids: []string{"a/b"}}, "ids"},
		"too many ids":  {&doppelv1.WatchTwinsRequest{Ids: make([]string, 1001)}, "ids"},
		"filter":        {&doppelv1.WatchTwinsRequest{Filter: "online &&"}, "filter"},
		"mask":          {&doppelv1.WatchTwinsRequest{ReadMask: maskOf("x")}, "read_mask"},
		"heartbeat":     {&doppelv1.WatchTwinsRequest{Heartbeat: durationpb.New(-1)}, "heartbeat"},
		"token":         {&doppelv1.WatchTwinsRequest{ResumeToken: "abc"}, "resume_token"},
		"alerts' token": {&doppelv1.WatchTwinsRequest{ResumeToken: alertsPlace{}.token()}, "resume_token"},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.watchTwins(t, tc.req)
			wantCode(t, <-s.err, codes.InvalidArgument, tc.field)
		})
	}
	if w.hub.TwinsWatched() {
		t.Error("refused watches have changes recorded")
	}
}

func TestWatchesEndWithTheHub(t *testing.T) {
	w := newWorld(t, HubConfig{})
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
	s.snapshot()
	a := w.watchAlerts(t, &doppelv1.WatchAlertsRequest{})
	a.snapshot()
	w.hub.Close()
	w.hub.Close()
	wantCode(t, <-s.err, codes.Unavailable, "")
	wantCode(t, <-a.err, codes.Unavailable, "")
	wantCode(t, <-w.watchTwins(t, &doppelv1.WatchTwinsRequest{}).err, codes.Unavailable, "")
}

// A subscriber that reads nothing keeps neither the partitions nor other subscribers waiting, and
// catches up with the latest states when it reads again.
func TestSlowSubscriberSlowsNobody(t *testing.T) {
	w := newWorld(t, HubConfig{})
	const twins = 2000
	for i := range twins {
		w.Put(apitest.Twin(fmt.Sprintf("d%04d", i), 0))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow, err := w.twins.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{}, grpc.MaxCallRecvMsgSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Recv(); err != nil {
		t.Fatal(err)
	}
	fast := w.watchTwins(t, &doppelv1.WatchTwinsRequest{Ids: []string{"d0001"}})
	fast.snapshot()
	eventually(t, "watched", w.hub.TwinsWatched)

	// More than any window of the slow one's connection holds: were it waited for, this would not end.
	for range 30 {
		for i := range twins {
			w.hub.TwinChanged(0, fmt.Sprintf("d%04d", i), 1)
		}
	}
	w.Put(apitest.Twin("d0001", 77))
	for fast.next().GetChanged().GetSeq() != 77 {
	}
	for {
		m, err := slow.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if c := m.GetChanged(); c.GetId() == "d0001" && c.GetSeq() == 77 {
			return
		}
	}
}

// TestWatchTwinsThatStopMatching: a twin that was shown and does not pass the filter any more is told as gone, one
// that never did is not told of at all.
func TestWatchTwinsThatStopMatching(t *testing.T) {
	w := newWorld(t, HubConfig{})
	hot := func(id string, n int) *doppelv1.Twin { return apitest.Twin(id, 2*n) }
	w.Put(hot("in", 50))
	w.Put(hot("out", 10))
	req := &doppelv1.WatchTwinsRequest{Filter: `metrics.temperature.value > 80`}
	s := w.watchTwins(t, req)
	if ids, _ := s.snapshot(); len(ids) != 1 || !ids["in"] {
		t.Fatalf("snapshot %v, want in", ids)
	}
	token := ""
	expect := func(s *twinStream, changed, gone string) {
		t.Helper()
		m := s.next()
		if token = m.GetResumeToken(); m.GetChanged().GetId() != changed || m.GetDeletedId() != gone {
			t.Fatalf("got %v, want changed %q or gone %q", m, changed, gone)
		}
	}
	w.Put(hot("out", 11)) // nothing to tell
	w.Put(hot("in", 51))
	expect(s, "in", "")
	w.Put(hot("in", 9))
	expect(s, "", "in")
	w.Put(hot("in", 8))
	w.Remove("in")
	w.Put(hot("out", 60))
	expect(s, "out", "")
	w.Remove("out")
	expect(s, "", "out")
	w.Put(hot("new", 70))
	expect(s, "new", "")
	s.stop()

	// Behind a token nobody knows what was shown: what leaves is told once, to be safe.
	w.Put(hot("new", 5))
	w.Put(hot("other", 5))
	req.ResumeToken = token
	s = w.watchTwins(t, req)
	gone := map[string]bool{}
	for range 2 {
		gone[s.next().GetDeletedId()] = true
	}
	if !gone["new"] || !gone["other"] {
		t.Errorf("gone are %v, want new and other", gone)
	}
	w.Put(hot("other", 6))
	w.Put(hot("new", 71))
	expect(s, "new", "")
}

func TestShownTwinsAreBounded(t *testing.T) {
	s := &shownTwins{}
	for i := range shownMost + 10 {
		s.enters(fmt.Sprint("d", i))
	}
	if len(s.in) > shownMost {
		t.Errorf("%d are remembered", len(s.in))
	}
	if !s.leaves("d1") || s.leaves("d1") {
		t.Error("one that was forgotten is told as gone once")
	}
}
