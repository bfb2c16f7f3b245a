package bench

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// BenchmarkEmbedded measures broker, log and twins in one process, with the fleet beside it on the
// same cores: CPU of the node's process a message at growing rates, the last one as fast as messages
// are acknowledged.
func BenchmarkEmbedded(b *testing.B) {
	const devices, length = 1000, 15 * time.Second
	for _, rate := range []int{1_000, 10_000, 20_000, 40_000, 0} {
		name := fmt.Sprintf("rate=%d", rate)
		if rate == 0 {
			name = "rate=max"
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				n := startNode(b, b.TempDir())
				saved := n.profile("embedded-"+name, length)
				before, m := n.cpu(), n.metrics()
				r, sim := simulate(b, "--broker", "mqtt://"+n.addrs.MQTT, "--http", n.addrs.HTTP, "--grpc", n.addrs.GRPC,
					"--devices", strconv.Itoa(devices), "--rate", fmt.Sprint(float64(rate)/devices), "--duration", length.String())
				cpu, after := n.cpu()-before, n.metrics()
				saved()
				if got := after[applied] - m[applied]; got != float64(r.Acked) {
					b.Fatalf("%v samples applied of %d acknowledged", got, r.Acked)
				}
				_, peak := n.memory()
				samples := float64(r.Acked)
				b.ReportMetric(float64(cpu)*microsecond/samples, "cpu-µs/msg")
				b.ReportMetric(float64(sim)*microsecond/samples, "sim-cpu-µs/msg")
				b.ReportMetric((after[mallocs]-m[mallocs])/samples, "node-allocs/msg")
				b.ReportMetric((after[allocated]-m[allocated])/samples, "node-B/msg")
				b.ReportMetric(r.Rate, "msg/s")
				b.ReportMetric(r.LatencyMS.Puback.P99, "puback-p99-ms")
				b.ReportMetric(peak/(1<<20), "peak-rss-MiB")
				b.ReportMetric(0, "ns/op")
				n.stop()
			}
		})
	}
}
