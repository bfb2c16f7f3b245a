package kafka

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// Records of programs that know nothing of Doppel are read as far as they can be.
func TestIngestTakesAnyProducer(t *testing.T) {
	c := open(t, backends()[0].config(t))
	stamp := time.UnixMilli(1795341600_123)
	device := deviceOf(1)
	away := deviceOf(3)
	h := func(kv ...string) (hs []kgo.RecordHeader) {
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, header(kv[i], kv[i+1]))
		}
		return hs
	}
	ingest := c.Topics().Ingest
	plain := host.Message{Kind: host.Telemetry, Device: device, Payload: []byte("v"), ReceivedAt: stamp.UnixNano(), Topic: ingest}
	with := func(change func(*host.Message)) host.Message {
		m := plain
		change(&m)
		return m
	}
	for _, tt := range []struct {
		name string
		r    kgo.Record
		want host.Message
		home int32
	}{
		{"bare", kgo.Record{Key: device}, plain, -1},
		{"no key", kgo.Record{}, with(func(m *host.Message) { m.Device = nil }), -1},
		{"empty key", kgo.Record{Key: []byte{}}, with(func(m *host.Message) { m.Device = nil }), -1},
		{"other partitioner", kgo.Record{Key: away}, with(func(m *host.Message) { m.Device = away }), 3},
		{
			"content type with parameters",
			kgo.Record{Key: device, Headers: h("content-type", "application/json; charset=utf-8")},
			with(func(m *host.Message) { m.ContentType = "application/json" }), -1,
		},
		{"received at nonsense", kgo.Record{Key: device, Headers: h("received-at", "yesterday")}, plain, -1},
		{"received at beyond nanoseconds", kgo.Record{Key: device, Headers: h("received-at", "9999-01-01T00:00:00Z")}, plain, -1},
		{
			"received at with a zone",
			kgo.Record{Key: device, Headers: h("received-at", "2026-11-22T11:00:00.5+01:00")},
			with(func(m *host.Message) { m.ReceivedAt = 1795341600_500000000 }), -1,
		},
		{"unknown kind", kgo.Record{Key: device, Headers: h("topic", "devices/"+string(device)+"/events")}, with(func(m *host.Message) { m.Topic = "devices" }), -1},
		{"kind alone", kgo.Record{Key: device, Headers: h("topic", "status")}, with(func(m *host.Message) { m.Kind = host.Status }), -1},
		{"topic of another device", kgo.Record{Key: device, Headers: h("topic", "devices/x/reported")}, with(func(m *host.Message) { m.Kind = host.Reported }), -1},
		{"empty topic", kgo.Record{Key: device, Headers: h("topic", "")}, plain, -1},
		{"boot without seq", kgo.Record{Key: device, Headers: h("topic", "reported", "boot", "1")}, with(func(m *host.Message) { m.Kind = host.Reported }), -1},
		{"numbers of telemetry", kgo.Record{Key: device, Headers: h("boot", "1", "seq", "2")}, plain, -1},
		{"attempts nonsense", kgo.Record{Key: device, Headers: h("attempts", "256")}, plain, -1},
		{"unknown headers", kgo.Record{Key: device, Headers: h("traceparent", "00-1", "", "")}, plain, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.r
			r.Topic, r.Partition, r.Value, r.Timestamp = ingest, 1, []byte("v"), stamp
			if err := c.Producer().ProduceSync(t.Context(), &r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			var bk basket
			follow(t, c.Ingest(), 1, r.Offset, bk.take)
			until(t, "it is taken", func() bool { return len(bk.records()) == 1 })
			got := bk.records()[0]
			if diff := cmp.Diff(tt.want, got.Message, sameMessage, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			if got.Home != tt.home {
				t.Errorf("got home %d, want %d", got.Home, tt.home)
			}
		})
	}
}

// A transaction's records count when it commits; its marker is an offset without a message.
func TestIngestTransactions(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			in := c.Ingest()
			cl, err := kgo.NewClient(append(c.Options(), kgo.TransactionalID(c.Topics().Ingest), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			transact := func(value string, how kgo.TransactionEndTry) {
				t.Helper()
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				r := &kgo.Record{Topic: c.Topics().Ingest, Key: deviceOf(0), Value: []byte(value)}
				if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if _, end, err := in.Bounds(t.Context(), 0); err != nil || end != r.Offset {
					t.Errorf("got end %d and error %v while record %d is undecided, want %d", end, err, r.Offset, r.Offset)
				}
				if err := cl.EndTransaction(t.Context(), how); err != nil {
					t.Fatal(err)
				}
			}
			var bk basket
			follow(t, in, 0, 0, bk.take)
			transact("kept", kgo.TryCommit)
			transact("dropped", kgo.TryAbort)
			last := func() int64 {
				_, end, err := in.Bounds(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				return end
			}
			until(t, "both are decided", func() bool { return last() == 4 })
			until(t, "the end is reached", func() bool {
				rs := bk.records()
				return len(rs) > 0 && rs[len(rs)-1].Offset == 3
			})
			var values []string
			for _, r := range bk.records() {
				if r.Message.Kind != 0 {
					values = append(values, string(r.Message.Payload))
				}
			}
			if diff := cmp.Diff([]string{"kept"}, values); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}
