package router_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestPanicInsideMessage: what comes behind the sample that quarantined its twin, in the same message,
// must not be applied to the wreck and logged.
func TestPanicInsideMessage(t *testing.T) {
	log := openFaulty(t)
	var steps atomic.Int64
	n := start(t, log, func(c *host.Config) {
		c.BeforeStep = func(device string) {
			if device == "victim" && steps.Add(1) == 3 {
				panic("as a test wants it")
			}
		}
	})
	s := newSender(n)
	s.send(t, batchOf("victim", 1, 5, 2))
	s.settle(t)
	st := n.host.Stats()
	if got := st.Accounts(); got.Received != 5 || got.Applied != 2 || got.DeadLettered != 3 || got.InFlight != 0 {
		t.Errorf("got %+v, want 2 applied and 3 dead-lettered of 5", got)
	}
	n.stop()
	n = start(t, log, nil)
	if got := contents(t, n)["victim"]; got.Applied != 2 || got.Seq != 2 {
		t.Errorf("after a restart got %+v, want 2 applied", got)
	}
	if got := n.host.Stats().ReplayDifferences.Load(); got != 0 {
		t.Errorf("%d replay differences, want 0", got)
	}
}

// TestImpatientQueries: a query whose context ends leaves nothing behind that its partition still
// writes to (run with -race).
func TestImpatientQueries(t *testing.T) {
	n := start(t, openFaulty(t), nil)
	s := newSender(n)
	s.send(t, fleetOf(200, 5)...)
	s.settle(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j%20)*10*time.Microsecond)
				_ = n.reader.EachTwin(ctx, filter.Filter{}, func(*doppelv1.Twin) bool { return true })
				_, _ = n.reader.Twins(ctx, []string{fmt.Sprintf("dev-%d", i), "dev-9"})
				_, _ = n.reader.Alerts(ctx)
				cancel()
			}
		})
	}
	wg.Wait()
}

// TestFailedLetter: a dead letter that could not be written is sent again, and counted once.
func TestFailedLetter(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, nil)
	s := newSender(n)
	log.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "doppel.dlq", Err: kerr.InvalidRecord, Count: 2})
	broken := host.Message{Kind: host.Telemetry, Device: []byte("d"), Payload: []byte("{broken"), Topic: "devices", ReceivedAt: time.Now().UnixNano()}
	s.send(t, batchOf("d", 1, 2, 1), broken)
	s.settle(t)
	if got := n.host.Stats().Accounts(); got != (host.Accounts{Received: 3, Applied: 2, DeadLettered: 1}) {
		t.Errorf("got %+v, want 2 applied and 1 dead-lettered of 3", got)
	}
	done := make(chan error, 1)
	log.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "doppel.dlq", Err: kerr.InvalidRecord})
	n.host.Refuse(t.Context(), host.DeadLetter{Reason: "too_large"}, func(err error) { done <- err })
	if err := <-done; err == nil {
		t.Error("a letter that the log refused was taken for written")
	}
	if got := n.host.Stats().Accounts(); got != (host.Accounts{Received: 3, Applied: 2, DeadLettered: 1}) {
		t.Errorf("after a letter of a door got %+v, want no change", got)
	}
}

// TestLettersOutliveEpoch ends an epoch while dead letters of it are under way: each message gets its
// one verdict, and the next owner takes its number.
func TestLettersOutliveEpoch(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, holdLong)
	s := newSender(n)
	release := make(chan struct{})
	var once sync.Once
	log.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req, ok := r.(*kmsg.ProduceRequest)
		if ok && len(req.Topics) == 1 && strings.HasSuffix(req.Topics[0].Topic, "dlq") {
			once.Do(func() { <-release })
		}
		return nil, nil, false
	})
	now := time.Now().UnixNano()
	var msgs []host.Message
	for i := range 20 {
		payload := fmt.Sprintf(`{"boot":1,"samples":[{"seq":%d,"metrics":{"a":1}},{"seq":%d,"time":5,"metrics":{"a":1}}]}`, 2*i+1, 2*i+2)
		msgs = append(msgs, host.Message{Kind: host.Telemetry, Device: []byte("d"), Payload: []byte(payload), Topic: "devices", ReceivedAt: now + int64(i)})
	}
	log.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: telemetryTopic, Err: kerr.InvalidRecord, Count: 1})
	s.send(t, msgs...)
	close(release)
	s.settle(t)
	eventually(t, "the accounts are at rest", func() bool { return n.host.Stats().Accounts().InFlight == 0 })
	got := contents(t, n)["d"]
	if got.Applied != 20 || got.Seq != 40-1 || got.Missing != 0 || got.Held != 0 {
		t.Errorf("got %+v, want 20 applied and nothing missing", got)
	}
	checkAfter(t, log, n, contents(t, n))
}

// TestClockBack: a clock that runs backwards, also over a restart, changes nothing that replay would not.
func TestClockBack(t *testing.T) {
	log := openFaulty(t)
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	back := func(c *host.Config) { c.Clock = clock.Load }
	n := start(t, log, back)
	for i := range 3 {
		s := newSender(n)
		s.send(t, batchOf("d", 1+10*i, 10, 2))
		s.settle(t)
		clock.Add(-int64(time.Hour))
		s.send(t, batchOf("e", 1+10*i, 10, 2))
		s.settle(t)
		want := contents(t, n)
		n.stop()
		n = start(t, log, back)
		if got := contents(t, n); got["d"] != want["d"] || got["e"] != want["e"] {
			t.Errorf("after a restart got %+v, want %+v", got, want)
		}
		if got := n.host.Stats().ReplayDifferences.Load(); got != 0 {
			t.Errorf("%d replay differences, want 0", got)
		}
	}
}

// TestTruncatedLog: a log whose beginning is gone is not served as if it were whole.
func TestTruncatedLog(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, nil)
	s := newSender(n)
	s.send(t, fleetOf(20, 5)...)
	s.settle(t)
	var before kadm.Offsets
	before.AddOffset(telemetryTopic, 1, 3, -1)
	if _, err := kadm.NewClient(n.client.Producer()).DeleteRecords(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	h, err := host.New(n.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Serve(ctx, []int32{0, 1, 2, 3}); err == nil || ctx.Err() != nil {
		t.Errorf("got error %v, want a refusal to serve", err)
	}
}

// TestManyRecords restarts behind 200,000 records.
func TestManyRecords(t *testing.T) {
	log := openLog(t)
	n := start(t, log, nil)
	s := newSender(n)
	const devices, batches, size = 20, 10, 1000
	for i := range batches {
		var msgs []host.Message
		for d := range devices {
			msgs = append(msgs, batchOf(fmt.Sprintf("dev-%d", d), 1+i*size, size, 3))
		}
		s.send(t, msgs...)
	}
	s.settle(t)
	want := contents(t, n)
	n.stop()
	begin := time.Now()
	n = start(t, log, nil)
	t.Logf("serving %d records after %v", devices*batches*size, time.Since(begin).Round(time.Millisecond))
	got := contents(t, n)
	for id := range want {
		if want[id].Applied != batches*size || got[id] != want[id] {
			t.Errorf("%s: got %+v, want %+v", id, got[id], want[id])
		}
	}
}
