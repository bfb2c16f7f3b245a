package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 10 // more than lanes

// topic is doppel.alerts and its cursors in memory.
type topic struct {
	mu     sync.Mutex
	all    [partitions][]host.Published
	gone   [partitions]int64
	places map[string]map[int32]host.AlertPlace
	more   chan struct{} // closed when there is more
}

func newTopic() *topic {
	return &topic{places: map[string]map[int32]host.AlertPlace{}, more: make(chan struct{})}
}

// put appends what stands at a place of the changelog; a nil alert is nothing of ours.
func (l *topic) put(p int32, offset int64, a *doppelv1.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[p] = append(l.all[p], host.Published{Partition: p, At: int64(len(l.all[p])), Offset: offset, Alert: a})
	close(l.more)
	l.more = make(chan struct{})
}

func (l *topic) Bounds(context.Context) (start, end []int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.all {
		start, end = append(start, l.gone[p]), append(end, int64(len(l.all[p])))
	}
	return start, end, nil
}

func (l *topic) Tail(ctx context.Context, from map[int32]int64, fn func(host.Published) error) error {
	next := maps.Clone(from)
	for {
		l.mu.Lock()
		more := l.more
		var ready []host.Published
		for p, at := range next {
			if at < l.gone[p] {
				l.mu.Unlock()
				return host.ErrNotRetained
			}
			ready = append(ready, l.all[p][at:]...)
			next[p] = int64(len(l.all[p]))
		}
		l.mu.Unlock()
		for _, r := range ready {
			if err := fn(r); err != nil {
				return err
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cursors of one sink.
type cursors struct {
	*topic
	sink string
}

func (c cursors) Load(context.Context) (map[int32]host.AlertPlace, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.places[c.sink]), nil
}

func (c cursors) Save(_ context.Context, places map[int32]host.AlertPlace) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places[c.sink] == nil {
		c.places[c.sink] = map[int32]host.AlertPlace{}
	}
	maps.Copy(c.places[c.sink], places)
	return nil
}

// receiver is a real HTTP server that does what it is told.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	then func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

type received struct {
	path   string
	header http.Header
	body   []byte
	at     time.Time
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.got = append(r.got, received{req.URL.Path, req.Header, body, time.Now()})
		n, then := len(r.got), r.then
		r.mu.Unlock()
		if then == nil || !then(n, w, req) {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) does(then func(n int, w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.then = then
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// events are the CloudEvents that came, DEVICE STATE OFFSET.
func (r *receiver) events(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, g := range r.all() {
		var e struct {
			ID   string
			Data struct{ Device, State string }
		}
		if err := json.Unmarshal(g.body, &e); err != nil {
			t.Fatalf("%v: %s", err, g.body)
		}
		all = append(all, fmt.Sprintf("%s %s %s", e.Data.Device, e.Data.State, e.ID))
	}
	return all
}

// fixture is a notifier on a topic.
type fixture struct {
	*Notifier
	t     *testing.T
	topic *topic
	cfg   Config
	stop  func()

	mu   sync.Mutex
	open []*doppelv1.Alert // of partition 0
}

func newFixture(t *testing.T, sinks ...Sink) *fixture {
	t.Helper()
	f := &fixture{t: t, topic: newTopic()}
	f.cfg = Config{
		Sinks: sinks, Log: f.topic, Source: "urn:test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Cursors: func(sink string) Cursors { return cursors{f.topic, sink} },
		Open: func(_ context.Context, p int32) ([]*doppelv1.Alert, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if p != 0 {
				return nil, nil
			}
			return slices.Clone(f.open), nil
		},
	}
	return f
}

// start runs it, with all partitions, once it has begun to read.
func (f *fixture) start() {
	f.t.Helper()
	n, err := New(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Notifier = n
	if err := n.Begin(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
		for _, s := range n.sinks {
			s.client.CloseIdleConnections()
		}
	})
	f.t.Cleanup(f.stop)
	for p := range int32(partitions) {
		n.Own(p)
	}
	poll(f.t, "sinks read", func() bool {
		for _, s := range n.sinks {
			if places, _ := s.cursors.Load(context.Background()); len(places) != partitions {
				return false
			}
		}
		return true
	})
}

func (f *fixture) count(sink string, r Result) uint64 {
	for _, s := range f.Stats() {
		if s.Sink == sink {
			return s.Counts[r]
		}
	}
	return 0
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// alarm is a transition that happens now.
func alarm(device string, state doppelv1.AlertState, change ...func(*doppelv1.Alert)) *doppelv1.Alert {
	now := time.Now()
	a := &doppelv1.Alert{
		Id: "00000000000000aa", Device: device, Rule: "hot", Metric: "temperature", Severity: doppelv1.Severity_WARNING, State: state, Reason: "it is hot",
		CreateTime: timestamppb.New(now.Add(-time.Second)), FireTime: timestamppb.New(now), UpdateTime: timestamppb.New(now), Value: 91.5, Score: 4.25,
	}
	if state == doppelv1.AlertState_RESOLVED {
		a.ResolveTime = a.GetUpdateTime()
	}
	if state == doppelv1.AlertState_PENDING {
		a.FireTime = nil
	}
	for _, c := range change {
		c(a)
	}
	return a
}

const (
	firing   = doppelv1.AlertState_FIRING
	pending  = doppelv1.AlertState_PENDING
	resolved = doppelv1.AlertState_RESOLVED
)

// TestOnlyWhatIsWanted: pending, silenced and shadow alerts are nobody's; the rest is for a sink to choose.
// What stands in the log twice is told once.
func TestOnlyWhatIsWanted(t *testing.T) {
	r, quiet := newReceiver(t), newReceiver(t)
	f := newFixture(
		t,
		Sink{Name: "all", Kind: Webhook, URL: r.URL},
		Sink{Name: "some", Kind: Webhook, URL: quiet.URL, MinSeverity: "critical", Filter: `device.startsWith("pump")`, SendResolved: new(bool)},
	)
	f.topic.put(1, 1, alarm("old", firing)) // before there was a sink
	f.start()
	critical := func(a *doppelv1.Alert) { a.Severity = doppelv1.Severity_CRITICAL }
	put := func(offset int64, a *doppelv1.Alert) { f.topic.put(1, offset, a) }
	put(10, alarm("pump-1", pending))
	put(11, alarm("pump-1", firing))
	put(12, alarm("pump-1", firing, func(a *doppelv1.Alert) { a.Silenced = true }))
	put(13, alarm("pump-1", firing, func(a *doppelv1.Alert) { a.Shadow = true }))
	f.topic.put(1, 0, nil)
	put(14, alarm("pump-1", firing, critical))
	put(15, alarm("fan-1", firing, critical))
	put(11, alarm("pump-1", firing)) // said again, behind newer ones
	put(14, alarm("pump-1", firing, critical))
	put(16, alarm("pump-1", resolved, critical))
	put(17, alarm("pump-1", resolved, func(a *doppelv1.Alert) { a.FireTime = nil })) // was only pending
	put(18, alarm("last", firing))
	want := []string{
		"pump-1 FIRING 00000000000000aa/1:11:0", "pump-1 FIRING 00000000000000aa/1:14:0", "fan-1 FIRING 00000000000000aa/1:15:0",
		"pump-1 RESOLVED 00000000000000aa/1:16:0", "last FIRING 00000000000000aa/1:18:0",
	}
	poll(t, "all were told", func() bool { return len(r.all()) >= len(want) && f.Stats()[0].Lag+f.Stats()[1].Lag == 0 })
	if diff := cmp.Diff(want, r.events(t)); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	poll(t, "the others were told", func() bool { return len(quiet.all()) >= 1 })
	if diff := cmp.Diff([]string{"pump-1 FIRING 00000000000000aa/1:14:0"}, quiet.events(t)); diff != "" {
		t.Errorf("some (-want +got):\n%s", diff)
	}
	if n := f.count("all", Delivered); n != uint64(len(want)) {
		t.Errorf("%d delivered, want %d", n, len(want))
	}
}

// TestTheEndIsTold: who was told of an alert is told that it is over, though it would not be told of one like that.
func TestTheEndIsTold(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL, MinSeverity: "critical"})
	f.start()
	severe := func(s doppelv1.Severity, id string) func(*doppelv1.Alert) {
		return func(a *doppelv1.Alert) { a.Severity, a.Id = s, id }
	}
	f.topic.put(0, 1, alarm("a", firing, severe(doppelv1.Severity_CRITICAL, "1")))
	f.topic.put(0, 2, alarm("a", firing, severe(doppelv1.Severity_WARNING, "1")))
	f.topic.put(0, 3, alarm("b", firing, severe(doppelv1.Severity_WARNING, "2")))
	f.topic.put(0, 4, alarm("b", resolved, severe(doppelv1.Severity_WARNING, "2")))
	f.topic.put(0, 5, alarm("a", resolved, severe(doppelv1.Severity_WARNING, "1")))
	f.topic.put(0, 6, alarm("c", firing, severe(doppelv1.Severity_CRITICAL, "3")))
	poll(t, "all were told", func() bool { return len(r.all()) >= 3 })
	if diff := cmp.Diff([]string{"a FIRING 1/0:1:0", "a RESOLVED 1/0:5:0", "c FIRING 3/0:6:0"}, r.events(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFailuresAreOutlasted: errors, hangs and a receiver that is not there cost time and nothing else, each
// partition keeps its order, a restart repeats nothing, and other sinks notice nothing of it.
func TestFailuresAreOutlasted(t *testing.T) {
	bad, good := newReceiver(t), newReceiver(t)
	f := newFixture(t, Sink{Name: "bad", Kind: Webhook, URL: bad.URL, Timeout: 300 * time.Millisecond}, Sink{Name: "good", Kind: Webhook, URL: good.URL})
	bad.does(func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 40 {
			return false
		}
		switch n % 6 {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			w.WriteHeader(http.StatusTooManyRequests)
		case 3: // hangs
			<-r.Context().Done()
		case 4:
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		default:
			return false
		}
		return true
	})
	f.start()
	const each = 3
	for i := range int64(each) {
		for p := range int32(partitions) {
			f.topic.put(p, 100+i, alarm(fmt.Sprintf("d%d", p), firing))
		}
	}
	poll(t, "the good one has all", func() bool { return len(good.all()) == partitions*each })
	if n := f.count("bad", Delivered); n == partitions*each {
		t.Error("the bad one has all already")
	}
	// A node is replaced by another one in the middle of it.
	poll(t, "the bad one has some", func() bool { return f.count("bad", Delivered) > 2 && f.count("bad", Failed) > 2 })
	f.stop()
	f.start()
	told := func() map[string][]string {
		last := map[string][]string{}
		for _, e := range bad.events(t) {
			var device, state, id string
			if _, err := fmt.Sscan(e, &device, &state, &id); err != nil {
				t.Fatal(err)
			}
			if n := len(last[device]); n == 0 || last[device][n-1] != id {
				last[device] = append(last[device], id)
			}
		}
		return last
	}
	want := map[string][]string{}
	for p := range int32(partitions) {
		for i := range int64(each) {
			want[fmt.Sprintf("d%d", p)] = append(want[fmt.Sprintf("d%d", p)], fmt.Sprintf("00000000000000aa/%d:%d:0", p, 100+i))
		}
	}
	poll(t, "the bad one has all", func() bool {
		return f.Stats()[0].Lag == 0 && cmp.Equal(want, told())
	})
	if n := len(good.all()); n != partitions*each {
		t.Errorf("the good one was told %d times of %d", n, partitions*each)
	}
}

// TestRefusedForGood: what a receiver does not want is dropped, once, and counted.
func TestRefusedForGood(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL})
	r.does(func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			http.Error(w, "no such channel", http.StatusUnprocessableEntity)
		}
		return n == 1
	})
	f.start()
	f.topic.put(0, 1, alarm("a", firing))
	f.topic.put(0, 2, alarm("b", firing))
	poll(t, "both are done with", func() bool { return f.count("ops", Delivered) == 1 })
	if n, m := f.count("ops", Dropped), len(r.all()); n != 1 || m != 2 {
		t.Errorf("%d dropped, %d requests", n, m)
	}
}

// TestWhatIsTooOld: what nobody took for too long is not told any more, and does not block what is new.
func TestWhatIsTooOld(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL, MaxAge: time.Hour})
	f.start()
	f.topic.put(0, 1, alarm("a", firing, func(a *doppelv1.Alert) { a.UpdateTime = timestamppb.New(time.Now().Add(-2 * time.Hour)) }))
	f.topic.put(0, 2, alarm("b", firing))
	poll(t, "the new one is told", func() bool { return f.count("ops", Delivered) == 1 })
	if n := f.count("ops", Expired); n != 1 || len(r.all()) != 1 {
		t.Errorf("%d expired, %d requests", n, len(r.all()))
	}
}

// TestRetryAfter: a receiver that asks for a pause gets it.
func TestRetryAfter(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL})
	r.does(func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n == 1
	})
	f.start()
	f.topic.put(0, 1, alarm("a", firing))
	poll(t, "it is told", func() bool { return f.count("ops", Delivered) == 1 })
	all := r.all()
	if pause := all[1].at.Sub(all[0].at); pause < 2*time.Second {
		t.Errorf("told again after %v", pause)
	}
	now := time.Now()
	for text, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-3": 0, "soon": 0, "999999999": retryAfterMost,
		now.Add(10 * time.Second).UTC().Format(http.TimeFormat): 10 * time.Second, now.Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(text, now); (got - want).Abs() > time.Second {
			t.Errorf("Retry-After %q: %v, want %v", text, got, want)
		}
	}
}

// TestPartitionsComeAndGo: nothing of partitions that are another's, and from where that one was.
func TestPartitionsComeAndGo(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL})
	f.start()
	f.topic.put(3, 1, alarm("a", firing))
	poll(t, "it is told", func() bool { return len(r.all()) == 1 })
	f.Release(3)
	poll(t, "its place is left behind", func() bool { _, has := f.sinks[0].placeOf(3); return !has })
	f.topic.put(3, 2, alarm("b", firing))
	f.topic.put(4, 1, alarm("c", firing))
	poll(t, "others' go on", func() bool { return len(r.all()) == 2 })
	other := cursors{f.topic, "ops"}
	if err := other.Save(t.Context(), map[int32]host.AlertPlace{3: {Next: 2, Offset: 2}}); err != nil { // another node told b
		t.Fatal(err)
	}
	f.Own(3)
	f.topic.put(3, 3, alarm("d", firing))
	poll(t, "what came since is told", func() bool { return len(r.all()) == 3 })
	want := []string{"a FIRING 00000000000000aa/3:1:0", "c FIRING 00000000000000aa/4:1:0", "d FIRING 00000000000000aa/3:3:0"}
	if diff := cmp.Diff(want, r.events(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWhatRetentionTook: alerts that were removed before they were delivered are counted, and delivery goes on.
func TestWhatRetentionTook(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL})
	f.start()
	f.stop()
	for i := range int64(10) {
		f.topic.put(0, i, alarm("a", firing))
	}
	f.topic.mu.Lock()
	f.topic.gone[0] = 7
	f.topic.mu.Unlock()
	f.start()
	poll(t, "the rest is told", func() bool { return len(r.all()) == 3 })
	if n := f.count("ops", Lost); n != 7 {
		t.Errorf("%d lost, want 7", n)
	}
}

func (s *sink) placeOf(p int32) (host.AlertPlace, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.places[p]
	return at, ok
}
