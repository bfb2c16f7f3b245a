package node_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

// byCRC32 is the partitioner of librdkafka's clients: keys go elsewhere than with Kafka's own.
func byCRC32() kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int { return int(crc32.ChecksumIEEE(r.Key) % uint32(n)) }
	})
}

// produce writes records as any Kafka client would.
func produce(t *testing.T, n *nodetest.Node, partitioner kgo.Partitioner, records ...*kgo.Record) {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(n.Kafka()), kgo.DefaultProduceTopic(n.Config.TopicPrefix + "ingest")}
	if partitioner != nil {
		opts = append(opts, kgo.RecordPartitioner(partitioner))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// feeder is what a device sends: numbered samples of one metric.
type feeder struct {
	id      string
	chain   device.Chain
	records []*kgo.Record
}

func newFeeder(id string, samples int) *feeder {
	h := &feeder{id: id}
	at := time.Now().UnixNano()
	for seq := 1; seq <= samples; seq++ {
		s := device.Sample{Boot: 1, Seq: uint64(seq), Time: at + int64(seq)*1e6, Readings: []device.Reading{{Name: "t", Value: float64(seq) / 2}}}
		h.chain.Add(&s)
		value := fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"t":%v}}`, seq, s.Time, float64(seq)/2)
		h.records = append(h.records, &kgo.Record{Key: []byte(id), Value: []byte(value)})
	}
	return h
}

// fed is what of a twin its feeder knows.
type fed struct{ Digest, Set, Applied uint64 }

func (h *feeder) await(t *testing.T, n *nodetest.Node) {
	t.Helper()
	want := fed{h.chain.Digest, h.chain.Set, h.chain.Samples}
	tw := n.Await(h.id, "fed", func(tw *doppelv1.Twin) bool { return tw.GetCounters().GetApplied() >= want.Applied })
	if diff := cmp.Diff(want, fed{tw.GetDigest(), tw.GetSetDigest(), tw.GetCounters().GetApplied()}); diff != "" {
		t.Errorf("twin %s (-want +got):\n%s", h.id, diff)
	}
}

// TestPublicDoor: whoever can produce to Kafka feeds twins, whatever its partitioner; what names no
// device is a dead letter.
func TestPublicDoor(t *testing.T) {
	for name, configure := range map[string]func(testing.TB) node.Config{"embedded": nodetest.Embedded, "real": nodetest.Real} {
		t.Run(name, func(t *testing.T) {
			n := nodetest.Start(t, configure(t))
			const devices, samples = 12, 25
			var ours, theirs []*feeder
			var plain, moved []*kgo.Record
			for d := range devices {
				a, b := newFeeder(fmt.Sprintf("murmur-%d", d), samples), newFeeder(fmt.Sprintf("crc-%d", d), samples)
				ours, theirs = append(ours, a), append(theirs, b)
				plain, moved = append(plain, a.records...), append(moved, b.records...)
			}
			produce(t, n, nil, plain...)
			for _, h := range ours {
				h.await(t, n)
			}
			if got := n.Metrics()["doppel_ingest_rerouted_total"]; got != 0 {
				t.Errorf("%v records moved, want none of a producer that partitions as Kafka does", got)
			}
			produce(t, n, byCRC32(), moved...)
			for _, h := range theirs {
				h.await(t, n)
			}
			if got, want := n.Metrics()["doppel_ingest_rerouted_total"], float64(elsewhere(t, moved, n.Config.Partitions)); got != want {
				t.Errorf("%v records moved, want %v", got, want)
			}

			letters := n.Letters()
			produce(t, n, nil, &kgo.Record{Value: []byte(`{"metrics":{"t":1}}`)}, &kgo.Record{Key: []byte("no device/"), Value: []byte(`{"metrics":{"t":2}}`)})
			for key, reason := range map[string]string{"": "missing_key", "no device/": "device_id"} {
				if !nodetest.Poll(func() bool { return len(letters.Of(key)) > 0 }) {
					t.Errorf("no dead letter for key %q", key)
					continue
				}
				h := nodetest.Headers(letters.Of(key)[0])
				if h["reason"] != reason || h["source-topic"] == "" {
					t.Errorf("dead letter for key %q has %v, want reason %s and its topic", key, h, reason)
				}
			}
			if !nodetest.Poll(func() bool {
				m := n.Metrics()
				return m["doppel_samples_in_flight"] == 0 && m["doppel_samples_received_total"] == m.Settled()+m["doppel_samples_held"]
			}) {
				t.Errorf("accounts do not balance: %v", n.Metrics())
			}
			if got, want := n.Metrics()["doppel_samples_received_total"], float64(2*devices*samples+2); got != want {
				t.Errorf("%v samples received, want %v", got, want)
			}
		})
	}
}

// elsewhere is how many records went to another partition than their key's.
func elsewhere(t *testing.T, records []*kgo.Record, partitions int32) int {
	t.Helper()
	n := 0
	for _, r := range records {
		if placement.Partition(r.Key, partitions) != r.Partition {
			n++
		}
	}
	if n == 0 || n == len(records) {
		t.Fatalf("%d of %d records are elsewhere: this test shows nothing", n, len(records))
	}
	return n
}
