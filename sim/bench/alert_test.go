package bench

import (
	"testing"
	"time"

	"github.com/doppel-iot/doppel/sim/oracle"
)

// BenchmarkAlertLatency sends 10,000 messages a second through Mosquitto to a node on Kafka and
// QuestDB and measures from the publishing of an anomaly to its alert at a subscriber of WatchAlerts,
// with everything on the machine that runs the benchmark.
func BenchmarkAlertLatency(b *testing.B) {
	s := realServices(b)
	for b.Loop() {
		name := unique("alert")
		n := startNode(b, b.TempDir(), s.flags(name)...)
		load := func(prefix, duration string, more ...string) *oracle.Report {
			r, _ := simulate(b, append([]string{
				"--broker", s.mqtt, "--topic-root", name, "--prefix", name + prefix, "--http", n.addrs.HTTP, "--grpc", n.addrs.GRPC,
				"--devices", "1000", "--rate", "10", "--duration", duration,
			}, more...)...)
			return r
		}
		load("-warm-", "15s") // servers that have just started compile their code first
		saved := n.profile("alert", 20*time.Second)
		before := n.cpu()
		r := load("-", "20s", "--anomalies", "1", "--verify")
		cpu := n.cpu() - before
		saved()
		if r.LatencyMS.Alert == nil || r.Alerts == nil || r.Alerts.TruePositive == 0 {
			b.Fatalf("no alert was seen: %+v", r)
		}
		b.ReportMetric(r.LatencyMS.Alert.P50, "alert-p50-ms")
		b.ReportMetric(r.LatencyMS.Alert.P99, "alert-p99-ms")
		b.ReportMetric(r.LatencyMS.Puback.P50, "puback-p50-ms")
		b.ReportMetric(r.LatencyMS.Puback.P99, "puback-p99-ms")
		b.ReportMetric(float64(r.Alerts.TruePositive), "alerts")
		b.ReportMetric(float64(cpu)*microsecond/float64(r.Acked), "cpu-µs/msg")
		b.ReportMetric(r.Rate, "msg/s")
		b.ReportMetric(0, "ns/op")
		n.stop()
	}
}
