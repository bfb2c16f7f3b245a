package bench

import (
	"strconv"
	"testing"
	"time"
)

const (
	hotTwins     = `doppel_twins{state="hot"}`
	passiveTwins = `doppel_twins{state="passive"}`
	heapObjects  = "go_memstats_heap_alloc_bytes"
	heapInUse    = "go_memstats_heap_inuse_bytes"
)

// BenchmarkMillionTwins measures what a million hot twins with three metrics cost a node on Kafka:
// memory while they live, then time and memory of a restart after a kill: from the log alone, and from
// checkpoints once every twin has one.
func BenchmarkMillionTwins(b *testing.B) {
	b.Run("log", func(b *testing.B) { benchMillionTwins(b, false) })
	b.Run("checkpoints", func(b *testing.B) { benchMillionTwins(b, true) })
}

func benchMillionTwins(b *testing.B, saved bool) {
	const twins, batch = 1_000_000, 4
	s := realServices(b)
	for b.Loop() {
		name, dir := unique("twins"), b.TempDir()
		flags := s.flags(name)
		flags = append(flags, "--questdb", "", "--checkpoint-after", map[bool]string{false: "24h", true: "1s"}[saved]) // rows are BenchmarkDrain's
		n := startNode(b, dir, flags...)
		base, _ := n.memory()
		// One message a device with four samples, a second apart.
		r, _ := simulate(b, "--broker", s.mqtt, "--topic-root", name, "--prefix", name+"-", "--http", n.addrs.HTTP,
			"--devices", strconv.Itoa(twins), "--rate", "1", "--batch", strconv.Itoa(batch), "--duration", strconv.Itoa(batch)+"s",
			"--settle", "20m")
		if r.Acked != twins*batch {
			b.Fatalf("broker took %d samples, want %d", r.Acked, twins*batch)
		}
		live := awaitTwins(b, n, twins, twins*batch)
		_, peak := n.memory()
		if saved {
			awaitFloors(b, n, twins)
		}
		n.kill()
		n.ended = true

		n = startNode(b, dir, flags...)
		replay := n.ready
		restored := awaitTwins(b, n, twins, 0)
		rss, restoredPeak := n.memory()
		b.ReportMetric(live[heapObjects]/twins, "B/twin")
		b.ReportMetric(live[heapInUse]/twins, "heap-in-use-B/twin")
		b.ReportMetric((peak-base)/twins, "peak-rss-B/twin")
		b.ReportMetric(replay.Seconds(), "restart-s")
		b.ReportMetric(float64(n.cpu())*microsecond/float64(r.Acked), "replay-cpu-µs/sample")
		b.ReportMetric(restored[heapObjects]/twins, "restored-B/twin")
		b.ReportMetric((rss-base)/twins, "restored-rss-B/twin")
		b.ReportMetric((restoredPeak-base)/twins, "restart-peak-rss-B/twin")
		b.ReportMetric(0, "ns/op")
		n.stop()
	}
}

// awaitFloors waits until every twin has a checkpoint and floors stand behind them.
func awaitFloors(b *testing.B, n *node, twins float64) {
	b.Helper()
	var last float64
	err := eventually(10*time.Minute, func() bool {
		m := n.metrics()
		before := last
		last = m[checkpoints] + m[floors]
		time.Sleep(2 * time.Second) // floors follow within a second here
		return m[checkpoints] >= twins && last == before
	})
	if err != nil {
		b.Fatalf("%v checkpoints and floors of %v twins: %v", last, twins, err)
	}
}

// awaitTwins waits until the node has that many twins and has applied that many samples, and gives
// the metrics after two collections of garbage.
func awaitTwins(b *testing.B, n *node, twins, samples float64) map[string]float64 {
	b.Helper()
	var m map[string]float64
	err := eventually(10*time.Minute, func() bool {
		m = n.metrics()
		return m[hotTwins]+m[passiveTwins] >= twins && m[applied] >= samples
	})
	if err != nil || m[hotTwins]+m[passiveTwins] != twins {
		b.Fatalf("%v twins, %v samples applied, want %v and %v: %v", m[hotTwins]+m[passiveTwins], m[applied], twins, samples, err)
	}
	for range 2 {
		if err := n.get("/debug/pprof/heap?gc=1").Close(); err != nil { // as soon as it is collected
			b.Fatal(err)
		}
	}
	return n.metrics()
}
