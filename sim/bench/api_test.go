package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/oracle"
)

// fleetTwins and fleetRate are the fleet behind the benchmarks of the API: so many twins, so many messages a second.
const (
	fleetTwins = 100_000
	fleetRate  = 10_000
)

// dial opens connections to the node; calls are spread over them.
func (n *node) dial(conns int) []*grpc.ClientConn {
	n.b.Helper()
	all := make([]*grpc.ClientConn, conns)
	for i := range all {
		c, err := grpc.NewClient(n.addrs.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			n.b.Fatal(err)
		}
		n.b.Cleanup(func() { _ = c.Close() })
		all[i] = c
	}
	return all
}

// load gives the node its fleet and keeps it busy for so long. wait is until all of that is over, ready until every
// device has a twin.
func (n *node) load(length time.Duration) (ready, wait func() *oracle.Report) {
	done := make(chan *oracle.Report, 1)
	go func() {
		r, _ := simulate(n.b, "--broker", "mqtt://"+n.addrs.MQTT, "--prefix", "d", "--devices", strconv.Itoa(fleetTwins),
			"--rate", fmt.Sprint(float64(fleetRate)/fleetTwins), "--duration", length.String())
		done <- r
	}()
	ready = func() *oracle.Report {
		if err := eventually(5*time.Minute, func() bool { return n.metrics()[`doppel_twins{state="hot"}`] >= fleetTwins }); err != nil {
			n.b.Fatalf("a twin of each device: %v", err)
		}
		return nil
	}
	return ready, func() *oracle.Report { return <-done }
}

// ids are those of the fleet.
func (n *node) ids() []string {
	n.b.Helper()
	client := doppelv1.NewTwinServiceClient(n.dial(1)[0])
	var ids []string
	for token := ""; len(ids) < 10_000; {
		resp, err := client.ListTwins(n.b.Context(), &doppelv1.ListTwinsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			n.b.Fatal(err)
		}
		for _, t := range resp.GetTwins() {
			ids = append(ids, t.GetId())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	return ids
}

// percentile of sorted times, in milliseconds.
func percentile(sorted []time.Duration, p float64) float64 {
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]) / float64(time.Millisecond)
}

// BenchmarkGetTwin makes 5,000 calls a second, at their times whether the ones before were answered or not, of a node
// with 100,000 twins and 10,000 messages a second. CPU of a call is what the node uses more than without them, which is
// measured in turns; the median counts.
func BenchmarkGetTwin(b *testing.B) {
	const length = 8 * time.Second
	for b.Loop() {
		n := startNode(b, b.TempDir())
		ready, wait := n.load(90 * time.Second)
		ready()
		ids := n.ids()
		conns := n.dial(4)
		var costs, p50s, p99s, rates []float64
		for round := range repeats {
			idle := n.cpu()
			time.Sleep(length)
			idle = n.cpu() - idle
			saved := func() {}
			if round == 0 {
				saved = n.profile("get", length)
			}
			busy, begin := n.cpu(), time.Now()
			took := getTwins(b, conns, ids, length)
			rates = append(rates, float64(len(took))/time.Since(begin).Seconds())
			busy = n.cpu() - busy
			saved()
			costs = append(costs, float64(busy-idle)*microsecond/float64(len(took)))
			p50s, p99s = append(p50s, percentile(took, 0.5)), append(p99s, percentile(took, 0.99))
		}
		b.Logf("µs a call: %.1f; p99 in ms: %.1f", costs, p99s)
		b.ReportMetric(median(costs), "cpu-µs/call")
		b.ReportMetric(median(p50s), "p50-ms")
		b.ReportMetric(median(p99s), "p99-ms")
		b.ReportMetric(median(rates), "calls/s")
		b.ReportMetric(wait().LatencyMS.Puback.P99, "puback-p99-ms")
		b.ReportMetric(0, "ns/op")
		n.stop()
	}
}

// getTwins makes 5,000 calls a second for so long, and returns how long each took from when it was due, sorted.
func getTwins(b *testing.B, conns []*grpc.ClientConn, ids []string, length time.Duration) []time.Duration {
	b.Helper()
	const perSecond = 5_000
	var mu sync.Mutex
	var took []time.Duration
	var calls sync.WaitGroup
	begin := time.Now()
	for i := range int(length.Seconds() * perSecond) {
		due := begin.Add(time.Duration(i) * time.Second / perSecond)
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		calls.Go(func() {
			_, err := doppelv1.NewTwinServiceClient(conns[i%len(conns)]).GetTwin(b.Context(), &doppelv1.GetTwinRequest{Id: ids[rand.IntN(len(ids))]})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				b.Error(err)
			}
			took = append(took, time.Since(due))
		})
	}
	calls.Wait()
	slices.Sort(took)
	return took
}

// BenchmarkListTwins filters 100,000 hot twins again and again beside 10,000 messages a second, and says what that does
// to the messages: puback with and without it.
func BenchmarkListTwins(b *testing.B) {
	for _, filter := range []string{"", `online && metrics["temperature"].value > 1000`, `metrics["temperature"].z > 100`} {
		b.Run(filter, func(b *testing.B) {
			for b.Loop() {
				n := startNode(b, b.TempDir())
				ready, wait := n.load(60 * time.Second)
				ready()
				client := doppelv1.NewTwinServiceClient(n.dial(1)[0])
				ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
				var took []time.Duration
				for ctx.Err() == nil {
					at := time.Now()
					if _, err := client.ListTwins(ctx, &doppelv1.ListTwinsRequest{Filter: filter}); err != nil {
						break
					}
					took = append(took, time.Since(at))
				}
				cancel()
				if len(took) == 0 {
					b.Fatal("no list was made")
				}
				slices.Sort(took)
				b.ReportMetric(percentile(took, 0.5), "p50-ms")
				b.ReportMetric(percentile(took, 0.99), "p99-ms")
				b.ReportMetric(wait().LatencyMS.Puback.P99, "puback-p99-ms")
				b.ReportMetric(0, "ns/op")
				n.stop()
			}
		})
	}
}
