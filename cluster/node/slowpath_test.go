package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

// interrupted is a changelog that ends epochs and holds up claims when told to.
type interrupted struct {
	host.Log
	fail  atomic.Bool   // the next record, and so its epoch
	claim chan struct{} // claims after the first of each partition wait for it
	first [64]atomic.Bool
}

// Append implements host.Log.
func (l *interrupted) Append(ctx context.Context, p int32, recs []host.Record, acks host.Acks) {
	switch {
	case recs[0].N > 0 && l.fail.CompareAndSwap(true, false):
		for _, r := range recs {
			go acks.Ack(r.N, -1, errors.New("a fault of this test"))
		}
		return
	case recs[0].N == 0 && !l.first[p].CompareAndSwap(false, true):
		select {
		case <-l.claim:
		case <-ctx.Done():
		}
	}
	l.Log.Append(ctx, p, recs, acks)
}

// TestSlowPath: while nobody serves its partition, a device gets its acknowledgements; its twin has all
// of it afterwards, once and in order, and what came by the fast path before and after.
func TestSlowPath(t *testing.T) {
	log := &interrupted{claim: make(chan struct{})}
	n := nodetest.Start(t, nodetest.Embedded(t), func(n *node.Node) {
		n.Adjust(func(cfg *host.Config) { log.Log, cfg.Changelog = cfg.Changelog, log })
	})
	d := n.Device(nodetest.Unique("detour"))
	var chain device.Chain
	send := func(samples int) {
		t.Helper()
		for range samples {
			seq := chain.Samples + 1
			s := device.Sample{Boot: 1, Seq: seq, Time: 1795341600000000000 + int64(seq)*1e6, Readings: []device.Reading{{Name: "t", Value: float64(seq)}}}
			chain.Add(&s)
			d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"t":%d}}`, seq, s.Time, seq))
		}
	}
	send(20)
	if got := slow(n); len(got) != 0 {
		t.Errorf("slow path %v while all partitions serve, want none", got)
	}
	log.fail.Store(true)
	send(50) // each is acknowledged before the next: with no owner, doppel.ingest must have it
	if got := slow(n); got["down"]+got["restoring"] < 45 || got["restoring"] == 0 {
		t.Errorf("slow path %v, want nearly all of 50, most while the partition claims", got)
	}
	if tw := n.Metrics()[`doppel_partitions{state="serving"}`]; tw != float64(n.Config.Partitions-1) {
		t.Errorf("%v partitions serve: this test shows nothing", tw)
	}
	close(log.claim)
	send(30)
	tw := n.Await(d.ID, "complete", func(tw *doppelv1.Twin) bool { return tw.GetCounters().GetApplied() == chain.Samples })
	want, got := fed{chain.Digest, chain.Set, chain.Samples}, fed{tw.GetDigest(), tw.GetSetDigest(), tw.GetCounters().GetApplied()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("twin (-want +got):\n%s", diff)
	}
	balanced(t, n)
}

// slow is what went through doppel.ingest, by reason.
func slow(n *nodetest.Node) map[string]float64 {
	counts := make(map[string]float64)
	m := n.Metrics()
	for _, reason := range []string{"saturated", "unknown_owner", "down", "restoring"} {
		if v := m[`doppel_slow_path_total{reason="`+reason+`"}`]; v > 0 {
			counts[reason] = v
		}
	}
	return counts
}
