package router_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const telemetryTopic = "doppel.telemetry"

// faulty is a log that can be made to fail.
type faulty struct{ *kfake.Cluster }

func (f faulty) Addr() string { return f.ListenAddrs()[0] }

func openFaulty(t *testing.T) faulty {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return faulty{c}
}

// sender is a door: it keeps what it sent until it is released, and sends it again after any other verdict.
type sender struct {
	n *node

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]host.Message
	again   []host.Message
}

func newSender(n *node) *sender {
	return &sender{n: n, waiting: make(map[uint64]host.Message)}
}

// Done implements host.Reply.
func (s *sender) Done(tokens []uint64, v host.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokens {
		m, ok := s.waiting[token]
		if !ok {
			panic(fmt.Sprintf("verdict %d for token %d, which has one already", v, token))
		}
		delete(s.waiting, token)
		if v != host.Released {
			s.again = append(s.again, m)
		}
	}
}

// send delivers messages, each with a token of its own.
func (s *sender) send(t *testing.T, msgs ...host.Message) {
	t.Helper()
	s.mu.Lock()
	for i := range msgs {
		s.next++
		msgs[i].Token, msgs[i].Reply = s.next, s
		s.waiting[s.next] = msgs[i]
	}
	s.mu.Unlock()
	if err := s.n.router.Deliver(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
}

// settle sends again until everything is released.
func (s *sender) settle(t *testing.T) {
	t.Helper()
	eventually(t, "everything is released", func() bool {
		s.mu.Lock()
		again := s.again
		s.again = nil
		left := len(s.waiting) + len(again)
		s.mu.Unlock()
		if len(again) > 0 {
			s.send(t, again...)
		}
		return left == 0
	})
}

// fleetOf makes the messages of some devices, sample by sample.
func fleetOf(devices, samples int) (msgs []host.Message) {
	at := time.Now().UnixNano()
	for seq := 1; seq <= samples; seq++ {
		for d := range devices {
			payload := fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":%d.5}}`, seq, at+int64(seq)*1e6, 20+(seq+d)%7)
			msgs = append(msgs, host.Message{
				Kind: host.Telemetry, Device: fmt.Appendf(nil, "dev-%d", d), Payload: []byte(payload), Topic: "devices", ReceivedAt: at + int64(seq),
			})
		}
	}
	return msgs
}

// content is what of a twin does not depend on the way its samples took.
type content struct{ Digest, Set, Seq, Applied, Late, Held, Missing uint64 }

func contents(t *testing.T, n *node) map[string]content {
	t.Helper()
	all := make(map[string]content)
	for id, tw := range allTwins(t, n) {
		c := tw.GetCounters()
		all[id] = content{tw.GetDigest(), tw.GetSetDigest(), tw.GetSeq(), c.GetApplied(), c.GetLate(), c.GetHeld(), c.GetMissing()}
	}
	return all
}

// undisturbed is what msgs make of the twins of a node on a log without faults.
func undisturbed(t *testing.T, msgs []host.Message) map[string]content {
	t.Helper()
	n := start(t, openFaulty(t), nil)
	s := newSender(n)
	s.send(t, slices.Clone(msgs)...)
	s.settle(t)
	want := contents(t, n)
	n.stop()
	return want
}

// holdLong waits longer than any test does, so that no gap is declared behind a message sent again.
func holdLong(c *host.Config) { c.Limits.Hold, c.Limits.Held = time.Minute, 1024 }

// checkAfter compares twins and accounts after a failure, then once more after a restart.
func checkAfter(t *testing.T, log faulty, n *node, want map[string]content) {
	t.Helper()
	if diff := cmp.Diff(want, contents(t, n)); diff != "" {
		t.Errorf("twins after the failure (-want +got):\n%s", diff)
	}
	st := n.host.Stats()
	if got := st.Accounts().InFlight; got != 0 {
		t.Errorf("%d samples in flight at rest, want 0: received %d, applied %d, late %d, duplicate %d, dead-lettered %d, held %d", got,
			st.Received.Load(), st.Applied.Load(), st.Late.Load(), st.Duplicate.Load(), st.DeadLettered.Load(), st.Held.Load())
	}
	n.stop()
	n = start(t, log, holdLong)
	if diff := cmp.Diff(want, contents(t, n)); diff != "" {
		t.Errorf("twins after a restart (-want +got):\n%s", diff)
	}
	if got := n.host.Stats().ReplayDifferences.Load(); got != 0 {
		t.Errorf("%d replay differences, want 0", got)
	}
}

// TestFailedAppend lets the log refuse records in the middle of traffic: their epoch ends, and what was
// sent again makes the same twins.
func TestFailedAppend(t *testing.T) {
	msgs := fleetOf(20, 200)
	want := undisturbed(t, msgs)
	for _, err := range []*kerr.Error{kerr.MessageTooLarge, kerr.NotEnoughReplicasAfterAppend, kerr.InvalidRecord, kerr.UnknownServerError} {
		t.Run(err.Message, func(t *testing.T) {
			log := openFaulty(t)
			n := start(t, log, holdLong)
			s := newSender(n)
			for i, chunk := range slices.Collect(slices.Chunk(msgs, 100)) {
				if i%10 == 3 {
					log.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: telemetryTopic, Err: err, Count: 2})
				}
				s.send(t, slices.Clone(chunk)...)
			}
			s.settle(t)
			checkAfter(t, log, n, want)
		})
	}
}

// TestForeignClaim puts Claims of another node into the log under traffic: what lies behind them is
// void, nothing of it was released, and this node claims again.
func TestForeignClaim(t *testing.T) {
	msgs := fleetOf(20, 200)
	want := undisturbed(t, msgs)
	log := openFaulty(t)
	n := start(t, log, holdLong)
	claim := codec.AppendEvent(nil, &codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: time.Now().UnixNano(), Claim: &codec.Claim{Node: "n2", Incarnation: 7, Nonce: 7},
	})
	s := newSender(n)
	for i, chunk := range slices.Collect(slices.Chunk(msgs, 100)) {
		s.send(t, slices.Clone(chunk)...)
		if i%10 == 3 {
			r := &kgo.Record{Topic: telemetryTopic, Partition: int32(i) % partitions, Value: bytes.Clone(claim)}
			if err := n.client.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.settle(t)
	if got := n.host.Stats().Fenced.Load(); got == 0 {
		t.Error("no epoch ended")
	}
	checkAfter(t, log, n, want)
}

// batchOf is one message of numbered samples with many metrics.
func batchOf(device string, from, samples, metrics int) host.Message {
	var b strings.Builder
	at := time.Now().UnixMilli()
	fmt.Fprintf(&b, `{"boot":1,"samples":[`)
	for i := range samples {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"seq":%d,"metrics":{`, from+i)
		for m := range metrics {
			if m > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"m%d":1`, m)
		}
		b.WriteString("}}")
	}
	b.WriteString("]}")
	return host.Message{Kind: host.Telemetry, Device: []byte(device), Payload: []byte(b.String()), Topic: "devices", ReceivedAt: at * 1e6}
}

// TestHeldFlood lets a device that lost one number send thousands of samples behind it at once: what
// waits for the gap must fit a record when it is given up on.
func TestHeldFlood(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, nil)
	s := newSender(n)
	const batches, size = 40, 1000
	msgs := []host.Message{batchOf("flood", 1, 1, 5)}
	for i := range batches {
		msgs = append(msgs, batchOf("flood", 3+i*size, size, 4))
	}
	s.send(t, msgs...)
	s.settle(t)
	eventually(t, "nothing is held", func() bool { return contents(t, n)["flood"].Held == 0 })
	got := contents(t, n)["flood"]
	if got.Applied != 1+batches*size || got.Missing != 1 {
		t.Errorf("got %+v, want %d applied and 1 missing", got, 1+batches*size)
	}
	if got := n.host.Stats().Fenced.Load(); got != 0 {
		t.Errorf("%d epochs ended, want 0", got)
	}
	checkAfter(t, log, n, contents(t, n))
}

// TestStopWithoutLog stops a node whose log does not answer while more waits than may be in flight.
func TestStopWithoutLog(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, func(c *host.Config) { c.InFlight, c.Mailbox = 1<<20, 1 })
	s := newSender(n)
	block := make(chan struct{})
	defer close(block)
	log.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		log.KeepControl()
		log.SleepControl(func() { <-block })
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for i := range 200 {
			m := batchOf("busy", 1+i*1000, 1000, 1)
			s.mu.Lock()
			s.next++
			m.Token, m.Reply = s.next, s
			s.waiting[s.next] = m
			s.mu.Unlock()
			if n.router.Deliver(ctx, []host.Message{m}) != nil {
				return
			}
		}
	}()
	eventually(t, "records pile up", func() bool { return n.host.Stats().Received.Load() >= 10000 })
	begin := time.Now()
	stopped := make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(25 * time.Second):
		t.Fatal("still running after 25 s")
	}
	t.Logf("stopped after %v", time.Since(begin))
	eventually(t, "every message has its verdict", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.waiting) == 0
	})
}

// TestTimedFlood lets a device without numbers send what its twin holds at most, with as many metrics
// as a twin has: all of it is applied by one record.
func TestTimedFlood(t *testing.T) {
	log := openFaulty(t)
	n := start(t, log, nil)
	s := newSender(n)
	const samples, each = 1000, 25
	at := time.Now().UnixNano()
	var msgs []host.Message
	for i := 0; i < samples; i += each {
		var b strings.Builder
		b.WriteString(`{"samples":[`)
		for j := range each {
			fmt.Fprintf(&b, `{"time":%d,"metrics":{`, at+int64(i+j)*1e6)
			for m := range 64 {
				fmt.Fprintf(&b, `"a_name_of_a_metric_%02d":%d,`, m, (i+j)%10)
			}
			b.WriteString(`}},`)
		}
		payload := strings.ReplaceAll(strings.TrimSuffix(b.String(), ",")+"]}", ",}", "}")
		msgs = append(msgs, host.Message{Kind: host.Telemetry, Device: []byte("flood"), Payload: []byte(payload), Topic: "devices", ReceivedAt: at})
	}
	s.send(t, msgs...)
	s.settle(t)
	eventually(t, "nothing is held", func() bool { return contents(t, n)["flood"].Held == 0 })
	if got := contents(t, n)["flood"]; got.Applied != samples {
		t.Errorf("got %+v, want %d applied", got, samples)
	}
	if got := n.host.Stats().Fenced.Load(); got != 0 {
		t.Errorf("%d epochs ended, want 0", got)
	}
	checkAfter(t, log, n, contents(t, n))
}
