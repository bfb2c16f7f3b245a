package remote

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// deliver is a batch of n device messages of about 100 bytes.
func deliver(n int) *doppelv1.DeliverRequest {
	req := &doppelv1.DeliverRequest{Partition: 17}
	for i := range n {
		boot, seq := uint64(1), uint64(i)
		req.Messages = append(req.Messages, &doppelv1.DeviceMessage{
			Kind: doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_TELEMETRY, Device: fmt.Sprintf("device-%06d", i),
			Payload: make([]byte, 60), ContentType: "json", ReceivedAt: 1 << 60, Boot: &boot, Seq: &seq, Topic: "devices",
		})
	}
	return req
}

// BenchmarkDeliver sends batches of device messages from one node to another in this process; what
// it counts is one device message. cpu-ns/msg has both ends.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			from, to := startNode(b), startNode(b)
			var got atomic.Int64
			to.Handle("router/inbox", func(_ string, m proto.Message) {
				got.Add(int64(len(m.(*doppelv1.DeliverRequest).GetMessages())))
			})
			from.connected(b, to.Address())
			req := deliver(size)
			b.ReportAllocs()
			b.SetBytes(int64(proto.Size(req) / size))
			before := cpu(b)
			b.ResetTimer()
			n := int64(0)
			for i := 0; i < b.N; i += size {
				for {
					err := from.Tell(to.Address(), "router/inbox", req)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrFull) {
						b.Fatal(err)
					}
					runtime.Gosched()
				}
				n += int64(size)
			}
			for got.Load() < n {
				runtime.Gosched()
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/msg")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// cpu is the processor time of this process so far, in nanoseconds.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkRoundTrip tells one message and waits for its answer: what an idle way costs in time.
func BenchmarkRoundTrip(b *testing.B) {
	one, two := startNode(b), startNode(b)
	answered := make(chan struct{}, 1)
	one.Handle("inbox", func(string, proto.Message) { answered <- struct{}{} })
	two.Handle("inbox", func(from string, m proto.Message) {
		if err := two.Tell(from, "inbox", m); err != nil {
			b.Error(err)
			answered <- struct{}{}
		}
	})
	one.connected(b, two.Address())
	two.connected(b, one.Address())
	m := beat(1)
	before := cpu(b)
	b.ResetTimer()
	for b.Loop() {
		mustTell(b, one, two.Address(), "inbox", m)
		<-answered
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkPaced tells 10,000 batches a second, as a node does that is far from its limits.
func BenchmarkPaced(b *testing.B) {
	for _, size := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			from, to := startNode(b), startNode(b)
			var got atomic.Int64
			to.Handle("router/inbox", func(string, proto.Message) { got.Add(1) })
			from.connected(b, to.Address())
			req := deliver(size)
			before, sent := cpu(b), from.Stats().Batches.Load()
			n := 0
			for tick := time.NewTicker(time.Millisecond); n < b.N; {
				<-tick.C
				for range 10 {
					mustTell(b, from, to.Address(), "router/inbox", req)
					n++
				}
			}
			for got.Load() < int64(n) {
				runtime.Gosched()
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(n*size), "cpu-ns/msg")
			b.ReportMetric(float64(n)/float64(from.Stats().Batches.Load()-sent), "told/request")
		})
	}
}
