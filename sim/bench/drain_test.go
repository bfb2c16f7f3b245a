package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"
)

// BenchmarkDrain measures a node that finds a million messages which Mosquitto queued while it was
// away, on 64 partitions of Kafka, with rows in QuestDB: CPU of the node's process from its start to
// the last sample applied and written to QuestDB, everything included.
func BenchmarkDrain(b *testing.B) { benchDrain(b) }

// BenchmarkDrainCheckpoints is the same with checkpoints as often as their rate allows, one for 16
// records, and with none: what they cost is the difference.
func BenchmarkDrainCheckpoints(b *testing.B) {
	b.Run("none", func(b *testing.B) { benchDrain(b, "--checkpoint-after", "24h") })
	b.Run("most", func(b *testing.B) { benchDrain(b, "--checkpoint-after", "1ms") })
}

func benchDrain(b *testing.B, more ...string) {
	const devices, each = 10_000, 100
	const samples = devices * each
	s := realServices(b)
	for b.Loop() {
		b.StopTimer()
		name, dir := unique("drain"), b.TempDir()
		startNode(b, dir, s.flags(name)...).stop() // subscribes, makes the topics
		idle := startNode(b, dir, s.flags(name)...)
		b.ReportMetric(float64(idle.cpu().Milliseconds()), "start-ms")
		idle.stop()
		prefix := name + "-"
		r, _ := simulate(b, "--broker", s.mqtt, "--topic-root", name, "--prefix", prefix, "--http", idle.addrs.HTTP,
			"--devices", strconv.Itoa(devices), "--rate", "10", "--duration", fmt.Sprintf("%ds", each/10), "--settle", "10m")
		if r.Acked != samples {
			b.Fatalf("broker took %d samples, want %d", r.Acked, samples)
		}

		b.StartTimer()
		n := startNode(b, dir, append(s.flags(name), more...)...)
		saved := n.profile("drain", 20*time.Second)
		var m map[string]float64
		var cpuApplied, took time.Duration
		err := eventually(10*time.Minute, func() bool {
			m = n.metrics()
			if cpuApplied == 0 && m[applied] >= samples {
				cpuApplied, took = n.cpu(), time.Since(n.start)
			}
			return cpuApplied > 0 && m[lag] == 0
		})
		cpu := n.cpu()
		b.StopTimer()
		if err != nil || m[applied] != samples || m[received] != samples {
			b.Fatalf("received %v, applied %v, lag %v of %d samples: %v", m[received], m[applied], m[lag], samples, err)
		}
		saved()
		_, peak := n.memory()
		b.ReportMetric(float64(cpuApplied)*microsecond/samples, "applied-cpu-µs/msg")
		b.ReportMetric(float64(cpu)*microsecond/samples, "cpu-µs/msg")
		b.ReportMetric(m[mallocs]/samples, "node-allocs/msg")
		b.ReportMetric(m[allocated]/samples, "node-B/msg")
		b.ReportMetric(samples/took.Seconds(), "msg/s")
		b.ReportMetric(peak/(1<<20), "peak-rss-MiB")
		b.ReportMetric(m[checkpoints]/samples, "checkpoints/msg")
		b.ReportMetric(0, "ns/op")

		var rows int
		if err := eventually(time.Minute, func() bool { rows = countRows(b, s.questdb, prefix); return rows >= samples }); err != nil || rows != samples {
			b.Fatalf("QuestDB has %d rows of %d samples: %v", rows, samples, err)
		}
		n.stop()
		b.StartTimer()
	}
}

// countRows asks QuestDB for the rows of devices with a prefix.
func countRows(b *testing.B, questdb, prefix string) int {
	b.Helper()
	query := "SELECT count() FROM telemetry WHERE device LIKE '" + prefix + "%'"
	resp, err := http.Get(questdb + "/exec?query=" + url.QueryEscape(query))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Dataset [][]int }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Dataset) != 1 {
		b.Fatalf("%s: %s, %v", query, resp.Status, err)
	}
	return answer.Dataset[0][0]
}
