package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/query"
	"github.com/doppel-iot/doppel/cluster/router"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

const partitions = 4

// verdicts is a door: it collects what became of its messages.
type verdicts struct {
	mu  sync.Mutex
	got map[uint64]host.Verdict
}

func (v *verdicts) Done(tokens []uint64, verdict host.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range tokens {
		if old, ok := v.got[t]; ok {
			panic(fmt.Sprintf("token %d has verdict %d and gets %d", t, old, verdict))
		}
		v.got[t] = verdict
	}
}

func (v *verdicts) released() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, got := range v.got {
		if got == host.Released {
			n++
		}
	}
	return n
}

// node is a host on a real log, with everything a door needs.
type node struct {
	config host.Config
	host   *host.Host
	router *router.Router
	reader *query.Reader
	client *kafka.Client
	stop   func()
}

func start(t *testing.T, log interface{ Addr() string }, change func(*host.Config)) *node {
	t.Helper()
	n := open(t, log, change)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.host.Serve(ctx, []int32{0, 1, 2, 3}) }()
	n.router = router.New(router.Config{Owners: n.host, Partitions: partitions})
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := n.client.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	eventually(t, "all partitions serve", func() bool { s, _ := n.host.Restored(); return s == partitions })
	return n
}

// open makes a node that serves nothing, has no router, and is for the caller to stop.
func open(t *testing.T, log interface{ Addr() string }, change func(*host.Config)) *node {
	t.Helper()
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{log.Addr()}, Partitions: partitions, Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	var nonce atomic.Uint64
	cfg := host.Config{
		Node: "n1", Partitions: partitions,
		Changelog: client.Changelog(), State: client.State(), Ingest: client.Ingest(), DeadLetters: client.DeadLetters(), Alerts: client.AlertLog(),
		Clock: func() int64 { return time.Now().UnixNano() }, Nonce: func() uint64 { return nonce.Add(1) },
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &node{config: cfg, host: h, reader: query.New(query.Config{Host: h, Partitions: partitions}), client: client}
}

func openLog(t *testing.T) *kafka.Embedded {
	t.Helper()
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func telemetry(v *verdicts, token uint64, device, payload string) host.Message {
	return host.Message{
		Kind: host.Telemetry, Device: []byte(device), Payload: []byte(payload), Topic: "devices",
		ReceivedAt: time.Now().UnixNano(), Reply: v, Token: token,
	}
}

func sample(seq int) string {
	return fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":%d.5,"on":true}}`,
		seq, time.Now().UnixNano(), 20+seq%5)
}

// allTwins are the twins of a node by id.
func allTwins(t *testing.T, n *node) map[string]*doppelv1.Twin {
	t.Helper()
	twins := make(map[string]*doppelv1.Twin)
	err := n.reader.EachTwin(t.Context(), filter.Filter{}, func(tw *doppelv1.Twin) bool {
		twins[tw.GetId()] = tw
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return twins
}

// TestRestart feeds shuffled batches, and finds the same twins after a restart from the log.
func TestRestart(t *testing.T) {
	log := openLog(t)
	n := start(t, log, nil)
	v := &verdicts{got: make(map[uint64]host.Verdict)}
	const devices, samples = 50, 40
	token := uint64(0)
	for seq := 1; seq <= samples; seq += 2 {
		var batch []host.Message
		for d := range devices {
			for _, s := range []int{seq + 1, seq, seq} { // out of order, and one twice
				token++
				batch = append(batch, telemetry(v, token, fmt.Sprintf("dev-%d", d), sample(s)))
			}
		}
		if err := n.router.Deliver(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "every message is released", func() bool { return v.released() == int(token) })
	before := allTwins(t, n)
	if len(before) != devices {
		t.Fatalf("%d twins, want %d", len(before), devices)
	}
	for id, tw := range before {
		c := tw.GetCounters()
		if c.GetApplied() != samples || c.GetDuplicate() != samples/2 || c.GetHeld() != 0 || tw.GetSeq() != samples {
			t.Errorf("%s: seq %d, counters %v", id, tw.GetSeq(), c)
		}
	}
	n.stop()

	after := allTwins(t, start(t, log, nil))
	// The epoch is the new owner's; duplicates since a twin's last record are lost by design.
	ignore := protocmp.IgnoreFields(&doppelv1.Twin{}, "epoch")
	lost := protocmp.IgnoreFields(&doppelv1.Counters{}, "duplicate")
	if diff := cmp.Diff(before, after, protocmp.Transform(), ignore, lost); diff != "" {
		t.Errorf("twins after the restart (-before +after):\n%s", diff)
	}
}

// TestRefused sees a broken batch through: the bad sample is a dead letter, the others apply, and the
// accounts balance.
func TestRefused(t *testing.T) {
	n := start(t, openLog(t), nil)
	v := &verdicts{got: make(map[uint64]host.Verdict)}
	now := time.Now().UnixNano()
	batch := fmt.Sprintf(`{"boot":1,"samples":[{"seq":1,"time":%d,"metrics":{"a":1}},{"seq":2,"time":5,"metrics":{"a":2}},{"seq":3,"time":%d,"metrics":{"a":3}}]}`, now, now)
	msgs := []host.Message{telemetry(v, 1, "d", batch), telemetry(v, 2, "d", "{broken"), telemetry(v, 3, "ghost", "{}")}
	if err := n.router.Deliver(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are released", func() bool { return v.released() == 3 })
	tw, err := n.reader.Twin(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if c := tw.GetCounters(); c.GetApplied() != 2 || c.GetDeadLettered() != 2 || c.GetMissing() != 0 || tw.GetSeq() != 3 {
		t.Errorf("seq %d, counters %v", tw.GetSeq(), c)
	}
	if _, err := n.reader.Twin(t.Context(), "ghost"); !errors.Is(err, host.ErrUnknownDevice) {
		t.Errorf("a refused message made a twin: %v", err)
	}
	s := n.host.Stats()
	if s.Received.Load() != 5 || s.Applied.Load() != 2 || s.DeadLettered.Load() != 3 || s.Accounts().InFlight != 0 {
		t.Errorf("received %d applied %d dead-lettered %d in flight %d", s.Received.Load(), s.Applied.Load(), s.DeadLettered.Load(), s.Accounts().InFlight)
	}
}

// TestGap lets a gap run into its hold time: what was held applies, the missing number comes late.
func TestGap(t *testing.T) {
	n := start(t, openLog(t), nil)
	v := &verdicts{got: make(map[uint64]host.Verdict)}
	deliver := func(token uint64, seq int) {
		t.Helper()
		if err := n.router.Deliver(t.Context(), []host.Message{telemetry(v, token, "d", sample(seq))}); err != nil {
			t.Fatal(err)
		}
	}
	deliver(1, 1)
	deliver(2, 3)
	twinNow := func() *doppelv1.Twin {
		tw, err := n.reader.Twin(t.Context(), "d")
		if err != nil {
			t.Fatal(err)
		}
		return tw
	}
	eventually(t, "sample 3 is held and acknowledged", func() bool { return v.released() == 2 })
	if c := twinNow().GetCounters(); c.GetHeld() != 1 || c.GetApplied() != 1 {
		t.Errorf("counters while held: %v", c)
	}
	eventually(t, "the gap is declared", func() bool { return twinNow().GetCounters().GetGaps() == 1 })
	if tw := twinNow(); tw.GetSeq() != 3 || tw.GetCounters().GetMissing() != 1 || tw.GetCounters().GetHeld() != 0 {
		t.Errorf("seq %d, counters %v", tw.GetSeq(), tw.GetCounters())
	}
	deliver(3, 2)
	eventually(t, "sample 2 came late", func() bool { return twinNow().GetCounters().GetLate() == 1 })
	if c := twinNow().GetCounters(); c.GetMissing() != 0 || c.GetApplied() != 2 {
		t.Errorf("counters at the end: %v", c)
	}
}
