package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// repeats is how often each cluster is measured, in turns, so that what else the machine does meets both.
const repeats = 3

// BenchmarkTwoNodes compares the CPU that a message costs two nodes together, of whose messages half are
// taken at the one and belong to the other, with what it costs one node: streams that leave it idle in
// between, where wake-ups cost most, and a backlog that is drained as fast as can be. Ratio is that of the
// medians; core-each-ratio that of two nodes that may use one core each, as one node uses both.
func BenchmarkTwoNodes(b *testing.B) {
	for _, rate := range []int{3_000, 10_000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) { benchStream(b, rate) })
	}
	b.Run("drain", benchBacklog)
}

// cluster is nodes that share the services.
type cluster struct {
	b     *testing.B
	s     services
	name  string
	shape shape
	dirs  []string
	nodes []*node
}

// shape is how a cluster is made.
type shape struct {
	nodes    int
	coreEach bool // a node may use one core at a time; else all
}

// shapes are those compared, with the first.
var shapes = [...]shape{{nodes: 1}, {nodes: 2}, {nodes: 2, coreEach: true}}

// startCluster starts nodes and waits until each has its share.
func startCluster(b *testing.B, s services, of shape) *cluster {
	b.Helper()
	c := &cluster{b: b, s: s, shape: of, name: unique(fmt.Sprintf("%d-nodes", of.nodes))}
	for i := range of.nodes {
		c.dirs = append(c.dirs, filepath.Join(b.TempDir(), strconv.Itoa(i)))
		if err := os.MkdirAll(c.dirs[i], 0o750); err != nil {
			b.Fatal(err)
		}
	}
	c.start()
	return c
}

// launch starts the nodes and waits until they are ready.
func (c *cluster) launch() {
	c.b.Helper()
	c.nodes = nil
	var env []string
	if c.shape.coreEach {
		env = append(env, "GOMAXPROCS=1")
	}
	for i, dir := range c.dirs {
		flags := append(c.s.flags(c.name), "--node-id", c.name+"-"+strconv.Itoa(i))
		c.nodes = append(c.nodes, launchNodeWith(c.b, env, dir, flags...))
	}
	for _, n := range c.nodes {
		n.awaitReady()
	}
}

// start launches the nodes and waits until each has its share.
func (c *cluster) start() {
	c.b.Helper()
	c.launch()
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

// awaitCalm waits until nothing is applied any more, and QuestDB has all of it: Mosquitto acknowledges what
// it has only queued.
func (c *cluster) awaitCalm() {
	c.b.Helper()
	before := -1.0
	if err := eventually(2*time.Minute, func() bool {
		now, was := c.metric(applied), before
		before = now
		return now == was && c.metric(lag) == 0
	}); err != nil {
		c.b.Fatalf("nodes are behind: %v", err)
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

// send runs a fleet on the cluster, of that many messages a second.
func (c *cluster) send(rate int, length time.Duration) (acked uint64) {
	c.b.Helper()
	const devices = 2_000
	r, _ := simulate(c.b, "--broker", c.s.mqtt, "--topic-root", c.name, "--prefix", c.name+"-", "--http", c.nodes[0].addrs.HTTP,
		"--devices", strconv.Itoa(devices), "--rate", fmt.Sprint(float64(rate)/devices), "--duration", length.String(), "--settle", "5m")
	return r.Acked
}

const hopped = `doppel_forwarded_total{result="released"}`

func benchStream(b *testing.B, rate int) {
	const length, idle = 20 * time.Second, 5 * time.Second
	s := realServices(b)
	for b.Loop() {
		var clusters [len(shapes)]*cluster
		var idles, costs [len(shapes)][]float64
		for i, of := range shapes {
			clusters[i] = startCluster(b, s, of)
			clusters[i].send(rate, 5*time.Second) // twins are made, servers warm
			clusters[i].awaitCalm()
		}
		hops := 0.0
		for round := range repeats {
			for i, c := range clusters {
				before := c.cpu()
				time.Sleep(idle)
				idles[i] = append(idles[i], float64((c.cpu()-before).Microseconds())/idle.Seconds())

				saved := func() {}
				if round == 0 {
					saved = c.profile(fmt.Sprintf("two-nodes-rate=%d", rate), length)
				}
				taken, forwarded, before := c.metric(applied), c.metric(hopped), c.cpu()
				acked := c.send(rate, length)
				c.awaitCalm()
				got := c.metric(applied) - taken
				cpu := c.cpu() - before
				saved()
				if got != float64(acked) {
					b.Fatalf("%v samples applied of %d sent", got, acked)
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
// their start to the last row in QuestDB, without what they use when they find nothing. What they take
// before each has its share goes by doppel.ingest, which is the dearer way: slow/msg, the most of any.
func benchBacklog(b *testing.B) {
	const rate, seconds = 20_000, 40
	const samples = rate * seconds
	s := realServices(b)
	for b.Loop() {
		var costs [len(shapes)][]float64
		hops, slow := 0.0, 0.0
		for round := range repeats {
			for i, of := range shapes {
				c := startCluster(b, s, of)
				c.kill()
				c.start()
				c.awaitCalm()
				idle := c.cpu()
				c.kill()
				if acked := c.send(rate, seconds*time.Second); acked != samples {
					b.Fatalf("broker took %d samples, want %d", acked, samples)
				}
				c.launch()
				saved := func() {}
				if round == 0 {
					saved = c.profile("two-nodes-drain", 10*time.Second)
				}
				if err := eventually(5*time.Minute, func() bool { return c.metric(applied) >= samples }); err != nil {
					b.Fatalf("%v of %d samples applied: %v", c.metric(applied), samples, err)
				}
				c.awaitCalm()
				cpu := c.cpu() - idle
				saved()
				if got := c.metric(applied); got != samples {
					b.Fatalf("%v samples applied, want %d", got, samples)
				}
				costs[i] = append(costs[i], float64(cpu)*microsecond/samples)
				if i > 0 {
					hops, slow = c.metric(hopped)/samples, max(slow, c.slow()/samples)
				}
				c.kill()
			}
		}
		report(b, costs, hops)
		b.ReportMetric(slow, "slow/msg")
	}
}

// slow is how many messages took the slow path, for whatever reason.
func (c *cluster) slow() (sum float64) {
	for _, n := range c.nodes {
		for name, v := range n.metrics() {
			if strings.HasPrefix(name, "doppel_slow_path_total{") {
				sum += v
			}
		}
	}
	return sum
}

// report gives the costs in µs and their ratios.
func report(b *testing.B, costs [len(shapes)][]float64, hops float64) {
	b.Helper()
	b.Logf("µs a message: one node %.1f, two %.1f, two with a core each %.1f", costs[0], costs[1], costs[2])
	b.ReportMetric(median(costs[0]), "one-cpu-µs/msg")
	b.ReportMetric(median(costs[1]), "two-cpu-µs/msg")
	b.ReportMetric(median(costs[2]), "core-each-cpu-µs/msg")
	b.ReportMetric(median(costs[1])/median(costs[0]), "ratio")
	b.ReportMetric(median(costs[2])/median(costs[0]), "core-each-ratio")
	b.ReportMetric(hops, "hops/msg")
	b.ReportMetric(0, "ns/op")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
