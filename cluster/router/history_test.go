package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const pump = "pump-1"

var pumpPartition = placement.Partition([]byte(pump), partitions)

// deliverAll hands messages over one after another and waits for their release.
func deliverAll(t *testing.T, n *node, payloads ...string) {
	t.Helper()
	v := &verdicts{got: make(map[uint64]host.Verdict)}
	for i, p := range payloads {
		if err := n.router.Deliver(t.Context(), []host.Message{telemetry(v, uint64(i), pump, p)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every message is released", func() bool { return v.released() == len(payloads) })
}

// eventful is a life with everything in it: an order disturbed, a gap, a late sample, duplicates, a
// refusal, properties, and an alert that fires.
func eventful(from int) (payloads []string) {
	at := func(seq int, value float64) string {
		return fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":%g}}`, from+seq, time.Now().UnixNano(), value)
	}
	for i := 1; i <= 60; i++ {
		payloads = append(payloads, at(i, 20+float64(i%5)))
	}
	return append(payloads, at(62, 21), at(61, 22), at(61, 22), at(63, 900), at(64, 950), at(65, 21), "{broken",
		fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"temperature":21,"rpm":3},"reported":{"firmware":"1.2.3"}}`, from+66), at(68, 20))
}

func latest(t *testing.T, n *node) *doppelv1.Twin {
	t.Helper()
	tw, err := n.reader.Twin(t.Context(), pump)
	if err != nil {
		t.Fatal(err)
	}
	return tw
}

// past is a twin as a read of the past shows it: without what is of the present, or counted but no
// part of the state.
func past(tw *doppelv1.Twin) *doppelv1.Twin {
	tw = proto.CloneOf(tw)
	tw.GetCounters().Duplicate = 0
	return tw
}

// TestReplay: the log of two owners, folded again, is the live twin, bit for bit.
func TestReplay(t *testing.T) {
	log := openLog(t)
	n := start(t, log, nil)
	deliverAll(t, n, eventful(0)...)
	eventually(t, "the gap is declared", func() bool { return latest(t, n).GetCounters().GetGaps() == 1 })
	deliverAll(t, n, fmt.Sprintf(`{"boot":1,"seq":67,"time":%d,"metrics":{"temperature":19}}`, time.Now().UnixNano()))
	n.stop()
	n = start(t, log, nil)
	deliverAll(t, n, eventful(68)...)
	live := latest(t, n)
	alerts, err := n.reader.Alerts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := live.GetCounters(); c.GetLate() != 1 || c.GetDeadLettered() != 2 || len(alerts) == 0 {
		t.Fatalf("the life lacks something: %v, %d alerts", c, len(alerts))
	}
	r, err := n.reader.Replay(t.Context(), pump)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal || r.Difference != "" {
		t.Errorf("replay differs: %s", r.Difference)
	}
	if r.Start.Kind != "creation" || r.Version != live.GetVersion() || r.Inputs < live.GetVersion() {
		t.Errorf("replay began with %q and gave version %d by %d inputs, want creation, %d", r.Start.Kind, r.Version, r.Inputs, live.GetVersion())
	}
	hash, err := n.host.StateHash(t.Context(), pumpPartition)
	if err != nil {
		t.Fatal(err)
	}
	if hash.GetTwins() != 1 || hash.GetStateHash() != r.Hash || int64(hash.GetNextOffset()) < r.Next {
		t.Errorf("state hash of the partition %v, of the replay %x up to %d", hash, r.Hash, r.Next)
	}
	if _, err := n.reader.Replay(t.Context(), "nobody"); !errors.Is(err, host.ErrUnknownDevice) {
		t.Errorf("replay of nobody: %v, want %v", err, host.ErrUnknownDevice)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.reader.Replay(ended, pump); !errors.Is(err, context.Canceled) {
		t.Errorf("replay of an impatient caller: %v, want %v", err, context.Canceled)
	}
}

// TestReplayNamesTheDifference: whatever was changed in the log is found, and named.
func TestReplayNamesTheDifference(t *testing.T) {
	n, log := startTampered(t, openLog(t))
	deliverAll(t, n, eventful(0)...)
	eventually(t, "the gap is declared", func() bool { return latest(t, n).GetCounters().GetGaps() == 1 })
	sampled := func(seq uint64, change func(*doppelv1.TwinEvent)) func(string, *doppelv1.TwinEvent) bool {
		return func(key string, e *doppelv1.TwinEvent) bool {
			ours := key == pump && e.GetSample().GetSeq() == seq
			if ours {
				change(e)
			}
			return ours
		}
	}
	for name, test := range map[string]struct {
		edit func(string, *doppelv1.TwinEvent) bool
		want string
	}{
		"score":      {sampled(60, func(e *doppelv1.TwinEvent) { e.Applied[0].Score[0] += 1e-12 }), "sample (boot 1, seq 60): score of temperature is "},
		"z":          {sampled(60, func(e *doppelv1.TwinEvent) { e.Applied[0].Z[0] *= 2 }), "sample (boot 1, seq 60): z of temperature is "},
		"value":      {sampled(7, func(e *doppelv1.TwinEvent) { e.Sample.Values[0] = 7 }), "digest "},
		"digest":     {sampled(7, func(e *doppelv1.TwinEvent) { e.Digest++ }), "digest "},
		"set digest": {sampled(7, func(e *doppelv1.TwinEvent) { e.SetDigest++ }), "set_digest "},
		"version":    {sampled(7, func(e *doppelv1.TwinEvent) { e.Version += 2 }), "version 7, recorded 9"},
		"outcome":    {sampled(62, func(e *doppelv1.TwinEvent) { e.Outcome = doppelv1.EventOutcome_EVENT_OUTCOME_LATE }), "outcome 2, recorded 3"},
		"applied":    {sampled(61, func(e *doppelv1.TwinEvent) { e.Applied = e.GetApplied()[:1] }), "2 samples applied, recorded 1"},
		"alert": {sampled(63, func(e *doppelv1.TwinEvent) {
			for _, a := range e.GetTransitions() {
				a.State = doppelv1.AlertState_RESOLVED
			}
		}), "alert transition 0: "},
		"no alert": {sampled(63, func(e *doppelv1.TwinEvent) { e.Transitions = nil }), "alert transitions, recorded 0"},
		"lost":     {sampled(68, func(e *doppelv1.TwinEvent) { e.Epoch += 1000 }), "live twin: "}, // void, and all behind it
	} {
		t.Run(name, func(t *testing.T) {
			log.edit.Store(&test.edit)
			defer log.edit.Store(nil)
			r, err := n.reader.Replay(t.Context(), pump)
			if err != nil {
				t.Fatal(err)
			}
			if r.Equal || !strings.Contains(r.Difference, test.want) {
				t.Errorf("difference %q, want %q in it", r.Difference, test.want)
			}
			c, err := n.host.Check(t.Context(), pumpPartition)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(c.Difference, pump) {
				t.Errorf("the check of the partition finds %q", c.Difference)
			}
		})
	}
	if r, err := n.reader.Replay(t.Context(), pump); err != nil || !r.Equal {
		t.Errorf("replay of the log as it is: %+v, %v", r, err)
	}
}

// TestTwinAsOf: every version a twin ever had can be read again, by number and by time, from the log
// of all its owners.
func TestTwinAsOf(t *testing.T) {
	log := openLog(t)
	type was struct {
		twin *doppelv1.Twin
		at   int64
	}
	var history []was
	begin := time.Now().UnixNano()
	live := func(n *node, payloads ...string) {
		for _, p := range payloads {
			deliverAll(t, n, p)
			tw := latest(t, n)
			history = append(history, was{past(tw), time.Now().UnixNano()})
		}
	}
	n := start(t, log, nil)
	live(n, eventful(0)[30:60]...)
	n.stop()
	n = start(t, log, func(c *host.Config) { c.Node = "n2" })
	live(n, eventful(60)...)

	versions := make(map[uint64]bool)
	for i, w := range history {
		for _, at := range []host.AsOf{{Version: w.twin.GetVersion()}, {Time: w.at}} {
			got, err := n.reader.TwinAsOf(t.Context(), pump, at)
			if err != nil {
				t.Fatalf("state %d as of %+v: %v", i, at, err)
			}
			// What changed nothing left the version as it was, and gaps come when they are due.
			if at.Version == 0 && got.GetVersion() > w.twin.GetVersion() {
				continue
			}
			if diff := cmp.Diff(w.twin, past(got), protocmp.Transform()); diff != "" {
				t.Fatalf("state %d as of %+v (-then +now):\n%s", i, at, diff)
			}
			versions[got.GetVersion()] = true
		}
	}
	if len(versions) < 50 {
		t.Errorf("%d different versions were read, want 50 at least", len(versions))
	}
	now := latest(t, n)
	for name, test := range map[string]struct {
		device string
		at     host.AsOf
		want   error
	}{
		"a version to come":   {pump, host.AsOf{Version: now.GetVersion() + 100}, host.ErrFuture},
		"a time to come":      {pump, host.AsOf{Time: time.Now().Add(time.Hour).UnixNano()}, host.ErrFuture},
		"before its creation": {pump, host.AsOf{Time: begin}, host.ErrUnknownDevice},
		"nobody":              {"nobody", host.AsOf{Version: 1}, host.ErrUnknownDevice},
	} {
		if _, err := n.reader.TwinAsOf(t.Context(), test.device, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// TestHistoryOfATruncatedLog: where retention removed a twin's first records, its past begins with an
// anchor, else with its checkpoint; what lies before is said to be gone.
func TestHistoryOfATruncatedLog(t *testing.T) {
	n, log := startTampered(t, openLog(t), often)
	deliverAll(t, n, eventful(0)[:10]...)
	var anchor int64
	eventually(t, "the twin has an anchor and a checkpoint", func() bool {
		_, end, err := log.Bounds(t.Context(), pumpPartition)
		if err != nil {
			t.Fatal(err)
		}
		anchor = 0
		err = log.Log.Read(t.Context(), pumpPartition, 0, end, func(r host.LogRecord) error {
			var e doppelv1.TwinEvent
			if proto.Unmarshal(r.Value, &e) == nil && e.GetKind() == doppelv1.EventKind_EVENT_KIND_ANCHOR {
				anchor = r.Offset
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return anchor > 0 && n.host.Stats().Checkpoints.Load() > 0
	})
	deliverAll(t, n, eventful(10)...)
	early, err := n.reader.TwinAsOf(t.Context(), pump, host.AsOf{Version: 1})
	if err != nil || early.GetVersion() != 1 {
		t.Fatalf("version 1 of a whole log: %v, %v", early, err)
	}
	for _, test := range []struct {
		start int64
		kind  string
	}{{anchor, "anchor"}, {anchor + 1, "checkpoint"}} {
		log.start.Store(test.start)
		r, err := n.reader.Replay(t.Context(), pump)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Equal || r.Start.Kind != test.kind || r.Start.Version == 0 {
			t.Errorf("replay from offset %d: %+v, want an equal one that begins with its %s", test.start, r, test.kind)
		}
		live := latest(t, n)
		for v := r.Start.Version; v <= live.GetVersion(); v++ {
			tw, err := n.reader.TwinAsOf(t.Context(), pump, host.AsOf{Version: v})
			if err != nil || tw.GetVersion() != v {
				t.Errorf("version %d from offset %d on: %v, %v", v, test.start, tw.GetVersion(), err)
			}
		}
		for _, at := range []host.AsOf{{Version: 1}, {Time: early.GetCreateTime().AsTime().UnixNano()}} {
			if _, err := n.reader.TwinAsOf(t.Context(), pump, at); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("as of %+v from offset %d on: %v, want %v", at, test.start, err, host.ErrNotRetained)
			}
		}
		c, err := n.host.Check(t.Context(), pumpPartition)
		if err != nil {
			t.Fatal(err)
		}
		if c.Difference != "" || c.Uncovered != 0 || c.FoldHash != c.Audit.GetStateHash() {
			t.Errorf("check from offset %d on: %q, %d uncovered", test.start, c.Difference, c.Uncovered)
		}
	}
}

// TestStateHashUnderLoad: at any moment the state hash is that of the log below the offset it names.
func TestStateHashUnderLoad(t *testing.T) {
	n := start(t, openLog(t), nil)
	s := newSender(n)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for seq := 1; seq <= 300 && ctx.Err() == nil; seq++ {
			for d := range 20 {
				s.send(t, telemetry(nil, 0, device(d), sample(seq+seq%2*2-1))) // 2, 1, 4, 3, …
			}
			<-pace.C
		}
	}()
	defer func() { stop(); <-done }()
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "there are twins", func() bool { return n.host.Stats().Applied.Load() > 100 })
	for i := range 3 * partitions {
		p := int32(i % partitions)
		got, err := n.host.StateHash(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		f := host.NewFold(rules, host.Cursor{}, "")
		err = n.client.Changelog().Read(t.Context(), p, 0, int64(got.GetNextOffset()), func(r host.LogRecord) error {
			f.Take(r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if f.Hash() != got.GetStateHash() || f.First != nil {
			t.Fatalf("partition %d below offset %d: state hash %x, of the log %x; %v", p, got.GetNextOffset(), got.GetStateHash(), f.Hash(), f.First)
		}
		if c, err := n.host.Check(t.Context(), p); err != nil || c.Difference != "" {
			t.Fatalf("check of partition %d: %+v, %v", p, c, err)
		}
	}
}
