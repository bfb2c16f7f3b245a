package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// repeats is how often each cluster is measured, in turns, so that what else the machine does meets both.
const repeats = 3

// BenchmarkTwoNodes compares the CPU that a message costs two nodes together, of whose messages half are
// taken at the one and belong to the other, with what it costs one node: a paced stream, and a backlog that
// is drained as fast as can be. Ratio is that of the medians.
func BenchmarkTwoNodes(b *testing.B) {
	for _, rate := range []int{3_000, 10_000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) { benchPaced(b, rate) })
	}
	b.Run("drain", benchBacklog)
}

// cluster is nodes that share the services.
type cluster struct {
	b     *testing.B
	s     services
	name  string
	dirs  []string
	nodes []*node
}

// startCluster starts nodes and waits until each has its share.
func startCluster(b *testing.B, s services, size int) *cluster {
	b.Helper()
	c := &cluster{b: b, s: s, name: unique(fmt.Sprintf("%d-nodes", size))}
	for i := range size {
		c.dirs = append(c.dirs, filepath.Join(b.TempDir(), strconv.Itoa(i)))
		if err := os.MkdirAll(c.dirs[i], 0o750); err != nil {
			b.Fatal(err)
		}
	}
	c.start()
	return c
}

func (c *cluster) start() {
	c.b.Helper()
	c.nodes = nil
	for i, dir := range c.dirs {
		flags := append(c.s.flags(c.name), "--node-id", c.name+"-"+strconv.Itoa(i))
		c.nodes = append(c.nodes, launchNode(c.b, dir, flags...))
	}
	for _, n := range c.nodes {
		n.awaitReady()
	}
	var owned []float64
	if err := eventually(time.Minute, func() bool {
		owned = nil
		moving := 0.0
		for _, n := range c.nodes {
			m := n.metrics()
			owned = append(owned, m["doppel_partitions_owned"])
			moving += m["doppel_partitions_moving"]
		}
		return moving == 0 && slices.Max(owned) == slices.Min(owned) && owned[0] > 0
	}); err != nil {
		c.b.Fatalf("nodes own %v partitions: %v", owned, err)
	}
}

// kill ends all nodes at the same time: their sessions stay with the broker.
func (c *cluster) kill() {
	for _, n := range c.nodes {
		n.kill()
		n.ended = true
	}
}

func (c *cluster) cpu() (sum time.Duration) {
	for _, n := range c.nodes {
		sum += n.cpu()
	}
	return sum
}

func (c *cluster) metric(name string) (sum float64) {
	for _, n := range c.nodes {
		sum += n.metrics()[name]
	}
	return sum
}

func (c *cluster) profile(name string, length time.Duration) (wait func()) {
	var waits []func()
	for i, n := range c.nodes {
		waits = append(waits, n.profile(fmt.Sprintf("%s-%d-of-%d", name, i+1, len(c.nodes)), length))
	}
	return func() {
		for _, wait := range waits {
			wait()
		}
	}
}

// send runs a fleet on the cluster.
func (c *cluster) send(more ...string) (acked uint64) {
	c.b.Helper()
	r, _ := simulate(c.b, append([]string{
		"--broker", c.s.mqtt, "--topic-root", c.name, "--prefix", c.name + "-", "--http", c.nodes[0].addrs.HTTP, "--devices", "2000",
	}, more...)...)
	return r.Acked
}

const (
	hopped = `doppel_forwarded_total{result="released"}`
	sizes  = 2 // clusters of one and of two nodes
)

func benchPaced(b *testing.B, rate int) {
	const length, idle = 20 * time.Second, 5 * time.Second
	s := realServices(b)
	for b.Loop() {
		var clusters [sizes]*cluster
		var idles, costs [sizes][]float64
		for i := range clusters {
			clusters[i] = startCluster(b, s, i+1)
			clusters[i].send("--rate", fmt.Sprint(float64(rate)/2000), "--duration", "5s") // twins are made, servers warm
		}
		hops := 0.0
		for round := range repeats {
			for i, c := range clusters {
				before := c.cpu()
				time.Sleep(idle)
				idles[i] = append(idles[i], float64((c.cpu()-before).Microseconds())/idle.Seconds())

				saved := func() {}
				if round == 0 {
					saved = c.profile(fmt.Sprintf("rate-%d", rate), length)
				}
				taken, forwarded, before := c.metric(applied), c.metric(hopped), c.cpu()
				acked := c.send("--rate", fmt.Sprint(float64(rate)/2000), "--duration", length.String())
				var got float64 // Mosquitto acknowledges first
				err := eventually(time.Minute, func() bool { got = c.metric(applied) - taken; return got >= float64(acked) })
				cpu := c.cpu() - before
				saved()
				if err != nil || got != float64(acked) {
					b.Fatalf("%v samples applied of %d sent: %v", got, acked, err)
				}
				costs[i] = append(costs[i], float64(cpu)*microsecond/float64(acked))
				if i > 0 {
					hops = (c.metric(hopped) - forwarded) / float64(acked)
				}
			}
		}
		report(b, costs, hops)
		b.ReportMetric(median(idles[0]), "one-idle-µs/s")
		b.ReportMetric(median(idles[1]), "two-idle-µs/s")
		for _, c := range clusters {
			c.kill()
		}
	}
}

// benchBacklog lets nodes find what Mosquitto queued while they were away. CPU is that of the nodes from
// their start to the last sample applied.
func benchBacklog(b *testing.B) {
	const rate, seconds = 20_000, 20
	const samples = rate * seconds
	s := realServices(b)
	for b.Loop() {
		var costs [sizes][]float64
		hops := 0.0
		for round := range repeats {
			for i := range sizes {
				c := startCluster(b, s, i+1)
				c.kill()
				if acked := c.send("--rate", strconv.Itoa(rate/2000), "--duration", strconv.Itoa(seconds)+"s", "--settle", "5m"); acked != samples {
					b.Fatalf("broker took %d samples, want %d", acked, samples)
				}
				c.start()
				saved := func() {}
				if round == 0 {
					saved = c.profile("backlog", 10*time.Second)
				}
				var cpu time.Duration
				if err := eventually(5*time.Minute, func() bool { cpu = c.cpu(); return c.metric(applied) >= samples }); err != nil {
					b.Fatalf("%v of %d samples applied: %v", c.metric(applied), samples, err)
				}
				saved()
				if got := c.metric(applied); got != samples {
					b.Fatalf("%v samples applied, want %d", got, samples)
				}
				costs[i] = append(costs[i], float64(cpu)*microsecond/samples)
				if i > 0 {
					hops = c.metric(hopped) / samples
				}
				c.kill()
			}
		}
		report(b, costs, hops)
	}
}

// report gives both costs in µs and their ratio.
func report(b *testing.B, costs [sizes][]float64, hops float64) {
	b.Helper()
	b.Logf("µs a message: one node %.1f, two %.1f", costs[0], costs[1])
	b.ReportMetric(median(costs[0]), "one-cpu-µs/msg")
	b.ReportMetric(median(costs[1]), "two-cpu-µs/msg")
	b.ReportMetric(median(costs[1])/median(costs[0]), "ratio")
	b.ReportMetric(hops, "hops/msg")
	b.ReportMetric(0, "ns/op")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
