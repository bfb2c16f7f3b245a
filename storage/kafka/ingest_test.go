package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/storage/storagetest"
)

// basket is a take that keeps what it is given, and blocks while it is closed.
type basket struct {
	mu   sync.Mutex
	got  []host.IngestRecord
	gate chan struct{} // nil: open
}

func (b *basket) take(rs []host.IngestRecord) error {
	if b.gate != nil {
		<-b.gate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, rs...)
	return nil
}

func (b *basket) records() []host.IngestRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]host.IngestRecord(nil), b.got...)
}

// follow runs Follow until the test ends, or until stop, which returns what it ended with.
func follow(t *testing.T, in *Ingest, p int32, from int64, take func([]host.IngestRecord) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- in.Follow(ctx, p, from, take) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// put appends messages to p and returns when they are durable.
func put(t *testing.T, in *Ingest, p int32, ms ...host.Message) {
	t.Helper()
	done := make(chan error, len(ms))
	for i := range ms {
		in.Append(t.Context(), p, &ms[i], func(err error) { done <- err })
	}
	for range ms {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// deviceOf is a device whose home is p, of a test's partitions.
func deviceOf(p int32) []byte {
	for i := 0; ; i++ {
		d := fmt.Appendf(nil, "pump-%d", i)
		if placement.Partition(d, storagetest.Partitions) == p {
			return d
		}
	}
}

func sample(p int32, i int) host.Message {
	return host.Message{
		Kind: host.Telemetry, Device: deviceOf(p), Payload: fmt.Appendf(nil, "sample %d", i),
		ReceivedAt: 1795341600_123456789 + int64(i), Topic: "devices", ContentType: "application/json",
	}
}

var sameMessage = cmpopts.IgnoreFields(host.Message{}, "Reply", "Token")

// What Append is given comes back as it was.
func TestIngestKeepsMessages(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			in := open(t, b.config(t)).Ingest()
			device := deviceOf(2)
			want := []host.Message{
				sample(2, 0),
				{Kind: host.Status, Device: device, Payload: []byte("offline"), ReceivedAt: 1, Topic: "plant/7/devices"},
				{Kind: host.Reported, Device: device, Payload: []byte("{}"), ReceivedAt: 2, Topic: "d", Numbered: true, Boot: 1 << 63, Seq: 7},
				{Kind: host.Reported, Device: device, Payload: []byte{}, ReceivedAt: 3, Topic: "d", Attempts: 255},
			}
			put(t, in, 2, want...)
			var bk basket
			follow(t, in, 2, 0, bk.take)
			until(t, "all are taken", func() bool { return len(bk.records()) == len(want) })
			for i, r := range bk.records() {
				if diff := cmp.Diff(want[i], r.Message, sameMessage, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("message %d (-want +got):\n%s", i, diff)
				}
				if r.Offset != int64(i) || r.Home != -1 {
					t.Errorf("message %d: got offset %d and home %d, want %d and none", i, r.Offset, r.Home, i)
				}
			}
			start, end, err := in.Bounds(t.Context(), 2)
			if err != nil || start != 0 || end != int64(len(want)) {
				t.Errorf("got bounds %d, %d and error %v, want 0, %d", start, end, err, len(want))
			}
		})
	}
}

// Positions come and go; each Follow sees exactly what lies behind its own.
func TestIngestFollowsFromWhereItIsTold(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			in := open(t, b.config(t)).Ingest()
			const count = 300
			for p := range int32(4) {
				for i := range count / 100 {
					ms := make([]host.Message, 100)
					for j := range ms {
						ms[j] = sample(p, i*100+j)
					}
					put(t, in, p, ms...)
				}
			}
			var wg sync.WaitGroup
			for p := range int32(4) {
				wg.Go(func() {
					for round := range 6 {
						from := int64((round * 67) % count)
						var bk basket
						stop := follow(t, in, p, from, bk.take)
						need := 1 + (count-int(from)-1)*(round%2)
						until(t, "some are taken", func() bool { return len(bk.records()) >= need })
						if err := stop(); !errors.Is(err, context.Canceled) {
							t.Errorf("p%d: got error %v, want %v", p, err, context.Canceled)
						}
						for i, r := range bk.records() {
							want := fmt.Sprintf("sample %d", int(from)+i)
							if r.Offset != from+int64(i) || string(r.Message.Payload) != want {
								t.Errorf("p%d from %d: got %q at %d, want %q", p, from, r.Message.Payload, r.Offset, want)
								return
							}
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// A busy partition is fetched no further than its queue, and holds up no other.
func TestIngestSlowPartition(t *testing.T) {
	in := open(t, backends()[1].config(t)).Ingest()
	big := sample(0, 0)
	big.Payload = make([]byte, 100<<10)
	const count = 100 // 10 MiB
	for range count {
		put(t, in, 0, big)
	}
	slow := basket{gate: make(chan struct{})}
	follow(t, in, 0, 0, slow.take)
	var quick basket
	follow(t, in, 1, 0, quick.take)
	for i := range 50 {
		began := time.Now()
		put(t, in, 1, sample(1, i))
		until(t, "it is taken", func() bool { return len(quick.records()) == i+1 })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("record %d took %v beside a busy partition", i, took)
		}
	}
	if got := len(slow.records()); got != 0 {
		t.Fatalf("%d records taken while take was held", got)
	}
	held := make(chan int, 1)
	in.tails.do(func() {
		f := in.tails.followers[0]
		f.mu.Lock()
		defer f.mu.Unlock()
		held <- f.bytes
	})
	if got, limit := <-held, tailQueue+2*tailPartition; got > limit {
		t.Errorf("got %d bytes waiting, want at most %d", got, limit)
	}
	close(slow.gate)
	until(t, "all are taken", func() bool { return len(slow.records()) == count })
	for i, r := range slow.records() {
		if r.Offset != int64(i) {
			t.Fatalf("got offset %d at place %d", r.Offset, i)
		}
	}
}

// Rule G5: what is gone, at either end, is an error and not skipped.
func TestIngestRefusesWhatIsGone(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			put(t, c.Ingest(), 0, sample(0, 0), sample(0, 1), sample(0, 2))
			cut := func(before int64) {
				t.Helper()
				var os kadm.Offsets
				os.AddOffset(c.Topics().Ingest, 0, before, -1)
				if _, err := c.adm.DeleteRecords(t.Context(), os); err != nil {
					t.Fatal(err)
				}
			}
			cut(2)
			var bk basket
			err := c.Ingest().Follow(t.Context(), 0, 1, bk.take)
			if !errors.Is(err, ErrTruncated) {
				t.Errorf("from below the start: got error %v, want %v", err, ErrTruncated)
			}
			if got := len(bk.records()); got != 0 {
				t.Errorf("got %d records from below the start, want none", got)
			}
			if err := c.Ingest().Follow(t.Context(), 0, 2, func([]host.IngestRecord) error { return errEnough }); !errors.Is(err, errEnough) {
				t.Errorf("got error %v, want that of take", err)
			}
		})
	}
}

var errEnough = errors.New("enough")

func TestIngestRefusesAnEndBelowItsPosition(t *testing.T) {
	c := open(t, backends()[0].config(t))
	put(t, c.Ingest(), 0, sample(0, 0))
	err := c.Ingest().reachable(t.Context(), 0, 2, time.Now().Add(-time.Hour))
	var short *ShortError
	if !errors.As(err, &short) || !errors.Is(err, ErrTruncated) || short.End != 1 {
		t.Errorf("got error %v, want one of an end at 1", err)
	}
	if err := c.Ingest().reachable(t.Context(), 0, 2, time.Now()); err == nil || final(err) {
		t.Errorf("got error %v, want one that may pass", err)
	}
	if err := c.Ingest().reachable(t.Context(), 0, 1, time.Now()); err != nil {
		t.Errorf("from the end: got error %v", err)
	}
}

// A broker that goes and comes back is followed on, without a record lost or doubled.
func TestIngestSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg := local(e)
	cfg.Partitions = 4
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var bk basket
	follow(t, c.Ingest(), 3, 0, bk.take)
	for i := range 3 {
		put(t, c.Ingest(), 3, sample(3, i))
		until(t, "it is taken", func() bool { return len(bk.records()) == i+1 })
		addr := e.Addr()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, "the address is free", func() bool {
			e, err = OpenEmbedded(EmbeddedConfig{Addr: addr, DataDir: dir})
			return err == nil
		})
	}
	put(t, c.Ingest(), 3, sample(3, 3))
	until(t, "all are taken", func() bool { return len(bk.records()) >= 4 })
	for i, r := range bk.records() {
		if r.Offset != int64(i) {
			t.Errorf("got offset %d at place %d", r.Offset, i)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIngestEndsWithItsClient(t *testing.T) {
	c := open(t, backends()[0].config(t))
	var bk basket
	ended := make(chan error, 2)
	put(t, c.Ingest(), 0, sample(0, 0))
	go func() { ended <- c.Ingest().Follow(context.Background(), 0, 0, bk.take) }()
	until(t, "it is taken", func() bool { return len(bk.records()) == 1 })
	go func() { ended <- c.Ingest().Follow(context.Background(), 0, 0, bk.take) }() // waits for the first
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrClosed) && !errors.Is(err, kgo.ErrClientClosed) {
			t.Errorf("got error %v, want %v", err, ErrClosed)
		}
	}
	done := make(chan error, 1)
	m := sample(0, 1)
	c.Ingest().Append(t.Context(), 0, &m, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("append: got error %v, want %v", err, ErrClosed)
	}
}

func TestIngestAppendGivesUpWithItsContext(t *testing.T) {
	in := open(t, backends()[0].config(t)).Ingest()
	if !in.rooms[0].TryAcquire(ingestInFlight) {
		t.Fatal("no room at all")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	m := sample(0, 1)
	in.Append(ctx, 0, &m, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}
