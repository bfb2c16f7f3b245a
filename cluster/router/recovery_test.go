package router_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// TestPanicBehindManyRecords: a message gets its verdict also where the records in front of the sample
// that quarantined its twin fill what waits for the log.
func TestPanicBehindManyRecords(t *testing.T) {
	for _, nth := range []int64{64, 65, 129} {
		var steps atomic.Int64
		n := start(t, openFaulty(t), func(c *host.Config) {
			c.BeforeStep = func(device string) {
				if device == "victim" && steps.Add(1) == nth {
					panic("as a test wants it")
				}
			}
		})
		s := newSender(n)
		s.send(t, batchOf("victim", 1, 140, 1))
		s.settle(t)
		if got := n.host.Stats().Accounts(); got.Received != 140 || got.Applied != uint64(nth-1) || got.InFlight != 0 {
			t.Errorf("panic in sample %d: %+v", nth, got)
		}
		n.stop()
	}
}

// TestChangelogMadeAnew: checkpoints of a changelog that is gone are not taken for those of the one that
// stands in its place, though their epoch is the first one in both (S1).
func TestChangelogMadeAnew(t *testing.T) {
	old := start(t, openFaulty(t), often)
	s := newSender(old)
	s.send(t, fleetOf(20, 20)...)
	s.settle(t)
	eventually(t, "there are checkpoints and floors", func() bool {
		st := old.host.Stats()
		return st.Checkpoints.Load() >= 20 && st.Floors.Load() >= partitions
	})
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{openFaulty(t).Addr()}, Partitions: partitions, Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	cfg := old.config
	cfg.Changelog, cfg.Ingest = client.Changelog(), client.Ingest()
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Serve(ctx, []int32{0, 1, 2, 3}); err == nil || ctx.Err() != nil {
		t.Errorf("got error %v, want a refusal to serve", err)
	}
}

// hanging is a log of alerts that takes nothing and makes its callers wait.
type hanging struct{ called chan struct{} }

func (h hanging) Publish(ctx context.Context, _ host.Transition, done func(error)) {
	select {
	case h.called <- struct{}{}:
	default:
	}
	<-ctx.Done()
	go done(ctx.Err())
}

// lossy is a log of alerts that never answers.
type lossy struct{}

func (lossy) Publish(context.Context, host.Transition, func(error)) {}

// TestLeavingWhileAlertsHang: an owner that has transitions to emit again, and a log of alerts that does
// not take them, can leave all the same.
func TestLeavingWhileAlertsHang(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, func(c *host.Config) { c.Alerts, c.Rules = lossy{}, flaps(t) })
	s := newSender(n)
	s.send(t, flapping("d", 4)...)
	s.settle(t)
	cutOff(n)()
	cfg := n.config
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{log.Addr()}, Partitions: partitions, Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	hung := hanging{make(chan struct{}, 1)}
	cfg.Changelog, cfg.State, cfg.Ingest, cfg.Alerts = client.Changelog(), client.State(), client.Ingest(), hung
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, []int32{0, 1, 2, 3}) }()
	<-hung.called
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still not left after 20 s")
	}
}

// flapping are messages of a device whose value goes up and down with each sample, n times.
func flapping(device string, n int) (msgs []host.Message) {
	const size = 500
	at := time.Now().UnixNano()
	for from := 1; from <= n; from += size {
		var b strings.Builder
		b.WriteString(`{"boot":1,"samples":[`)
		for seq := from; seq < min(from+size, n+1); seq++ {
			if seq > from {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"seq":%d,"time":%d,"metrics":{"level":%d}}`, seq, at+int64(seq)*1e6, 100*(seq%2))
		}
		b.WriteString("]}")
		msgs = append(msgs, host.Message{Kind: host.Telemetry, Device: []byte(device), Payload: []byte(b.String()), Topic: "devices", ReceivedAt: at + int64(from)})
	}
	return msgs
}

// flaps is a rule that flapping makes fire and resolve with each sample.
func flaps(t *testing.T) *alert.Set {
	t.Helper()
	rules, err := alert.NewSet([]alert.Rule{{
		ID: "level", Version: 1, Kind: alert.Threshold, Metric: "level", Levels: []alert.Level{{Severity: alert.Warning, Op: ">", Enter: 50}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestFlappingAlerts: however many alerts a device has had, its checkpoint fits a record.
func TestFlappingAlerts(t *testing.T) {
	log := openLog(t)
	n := start(t, log, func(c *host.Config) { often(c); c.Rules = flaps(t) })
	s := newSender(n)
	const samples = 20000
	s.send(t, flapping("d", samples)...)
	s.settle(t)
	p := placement.Partition([]byte("d"), partitions)
	before := n.host.Stats().Checkpoints.Load()
	s.send(t, telemetryOf("d", fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"level":1}}`, samples+1)))
	s.settle(t)
	eventually(t, "the last change has its checkpoint", func() bool { return n.host.Stats().Checkpoints.Load() > before })
	if got := n.host.Stats().Fenced.Load(); got != 0 {
		t.Errorf("%d epochs ended", got)
	}
	if got := n.host.Partition(p).State; got != host.Serving {
		t.Errorf("partition is %s", got)
	}
}

func telemetryOf(device, payload string) host.Message {
	return host.Message{Kind: host.Telemetry, Device: []byte(device), Payload: []byte(payload), Topic: "devices", ReceivedAt: time.Now().UnixNano()}
}

// TestPanicInsideIngest: what comes behind the sample that quarantined its twin, in the same record of
// ingest, is among the dead letters once, and what came before it is not.
func TestPanicInsideIngest(t *testing.T) {
	log := openLog(t)
	var steps atomic.Int64
	n := start(t, log, func(c *host.Config) {
		c.BeforeStep = func(device string) {
			if device == "victim" && steps.Add(1) == 3 {
				panic("as a test wants it")
			}
		}
	})
	m := batchOf("victim", 1, 5, 2)
	done := make(chan error, 1)
	n.client.Ingest().Append(t.Context(), placement.Partition(m.Device, partitions), &m, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is settled", func() bool {
		a := n.host.Stats().Accounts()
		return a.DeadLettered >= 3 && a.InFlight == 0
	})
	if got := n.host.Stats().Accounts(); got != (host.Accounts{Received: 5, Applied: 2, DeadLettered: 3}) {
		t.Errorf("got %+v, want 2 applied and 3 dead-lettered of 5", got)
	}
}

// absence is a clock that a test sets forward while no node runs.
type absence struct{ forward atomic.Int64 }

func (a *absence) clock() int64 { return time.Now().UnixNano() + a.forward.Load() }

// tardyIngest is read a while after it was asked for, as an ingest with much in it is.
type tardyIngest struct{ host.Ingest }

func (i tardyIngest) Follow(ctx context.Context, p int32, from int64, take func([]host.IngestRecord) error) error {
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
	}
	return i.Ingest.Follow(ctx, p, from, take)
}

// TestHeldOverAnAbsence: a sample that waited when its node died waits on, however long the node was away,
// for the one in front of it that is in ingest: no gap is forced on what nobody was there to take.
func TestHeldOverAnAbsence(t *testing.T) {
	log := openLog(t)
	var away absence
	n := start(t, log, func(c *host.Config) { holdLong(c); c.Clock = away.clock })
	s := newSender(n)
	s.send(t, telemetryOf(pump, sample(1)), telemetryOf(pump, sample(3)))
	s.settle(t)
	m := telemetryOf(pump, sample(2))
	n.stop()
	other, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{log.Addr()}, Partitions: partitions, Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	done := make(chan error, 1)
	other.Ingest().Append(t.Context(), pumpPartition, &m, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	away.forward.Store(int64(10 * time.Minute))
	n = start(t, log, func(c *host.Config) { c.Clock, c.Ingest = away.clock, tardyIngest{c.Ingest} })
	eventually(t, "all three are taken", func() bool {
		return n.host.Stats().Ingested.Load() == 1 && contents(t, n)[pump].Held == 0
	})
	if got := contents(t, n)[pump]; got.Applied != 3 || got.Late != 0 {
		t.Errorf("%+v, want 3 in order", got)
	}
	if got := n.host.Stats().ForcedGaps.Load(); got != 0 {
		t.Errorf("%d gaps forced", got)
	}
}

// TestHeldOverARestart: what a device, or a broker, has to send again after a node's death comes in time
// for the samples that wait for it.
func TestHeldOverARestart(t *testing.T) {
	log := openLog(t)
	n := start(t, log, nil)
	s := newSender(n)
	s.send(t, telemetryOf(pump, sample(1)), telemetryOf(pump, sample(3)))
	s.settle(t)
	cutOff(n)()
	n = start(t, log, nil)
	settled := time.Now()
	eventually(t, "a device has connected again", func() bool { return time.Since(settled) > 1500*time.Millisecond })
	s = newSender(n)
	s.send(t, telemetryOf(pump, sample(2)))
	s.settle(t)
	if got := contents(t, n)[pump]; got.Applied != 3 || got.Late != 0 {
		t.Errorf("%+v, want 3 in order", got)
	}
}
