package group

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// TestMain runs more tests at a time than there are processors: they wait for sessions to run out.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// backend is a Kafka to test on.
type backend struct {
	name    string
	connect func(t *testing.T) string
}

// backends are a broker in this process, and a real Kafka where DOPPEL_TEST_KAFKA names one (HOST:PORT).
func backends() []backend {
	bs := []backend{{"fake", func(t *testing.T) string {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c.ListenAddrs()[0]
	}}}
	if addr := os.Getenv("DOPPEL_TEST_KAFKA"); addr != "" {
		bs = append(bs, backend{"kafka", func(*testing.T) string { return addr }})
	}
	return bs
}

const (
	topic      = "doppel.test.ingest"
	partitions = 16
	patience   = 30 * time.Second
)

// each runs a test on all backends.
func each(t *testing.T, fn func(t *testing.T, c *cluster)) {
	t.Helper()
	t.Parallel()
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			fn(t, &cluster{t: t, addr: b.connect(t), group: fmt.Sprintf("group-%d", time.Now().UnixNano()), tables: map[int64]*placement.Table{}})
		})
	}
}

// cluster is a group under test.
type cluster struct {
	t           *testing.T
	addr, group string

	mu     sync.Mutex
	tables map[int64]*placement.Table // by generation
}

// member is one node of it.
type member struct {
	*Group
	c     *cluster
	stop  func() // leaves
	crash func() // does not

	mu   sync.Mutex
	seen []*placement.Table
}

// start starts a node.
func (c *cluster) start(cfg Config, opts ...kgo.Opt) *member {
	c.t.Helper()
	m := &member{c: c}
	cfg.Connection = append([]kgo.Opt{kgo.SeedBrokers(c.addr), kgo.DisableClientMetrics()}, opts...)
	cfg.Group, cfg.Topic, cfg.Partitions = c.group, topic, partitions
	if cfg.Incarnation == 0 {
		cfg.Incarnation = 1
	}
	cfg.OnTable = m.take
	g, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Group = g
	ctx, cancel := context.WithCancel(context.Background()) // Cleanup ends it
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			c.t.Errorf("%s: %v", cfg.Node, err)
		}
	}()
	m.stop = func() {
		cancel()
		<-done
	}
	m.crash = func() {
		g.sit(seat{}) // it knows no seat to give up
		m.stop()
	}
	c.t.Cleanup(m.stop)
	return m
}

// gated starts a node whose network can fail.
func (c *cluster) gated(cfg Config) (*member, *gate) {
	c.t.Helper()
	g := newGate()
	m := c.start(cfg, kgo.Dialer(g.dial))
	c.t.Cleanup(g.close)
	return m, g
}

// take keeps a table. Generations must grow, and be the same for all.
func (m *member) take(t *placement.Table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.seen); n > 0 && m.seen[n-1].Generation >= t.Generation {
		m.c.t.Errorf("%s: got generation %d after %d", m.cfg.Node, t.Generation, m.seen[n-1].Generation)
	}
	m.seen = append(m.seen, t)
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if was, ok := m.c.tables[t.Generation]; !ok {
		m.c.tables[t.Generation] = t
	} else if diff := cmp.Diff(was, t); diff != "" {
		m.c.t.Errorf("%s: generation %d differs (-one +other)\n%s", m.cfg.Node, t.Generation, diff)
	}
}

// shares waits until all have the same table with these counts of partitions, by node.
func (c *cluster) shares(want map[string]int, ms ...*member) *placement.Table {
	c.t.Helper()
	return c.await(fmt.Sprintf("shares %v", want), func(t *placement.Table) bool { return cmp.Equal(counts(t), want) }, ms...)
}

func (c *cluster) await(what string, ok func(*placement.Table) bool, ms ...*member) *placement.Table {
	c.t.Helper()
	var t *placement.Table
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		t = ms[0].Table()
		if t != nil && ok(t) && !slices.ContainsFunc(ms[1:], func(m *member) bool {
			o := m.Table()
			return o == nil || o.Generation != t.Generation
		}) {
			return t
		}
		if time.Now().After(end) {
			for _, m := range ms {
				c.t.Errorf("%s: got %+v", m.cfg.Node, m.Table())
			}
			c.t.Fatalf("no table with %s", what)
		}
	}
}

// until waits for something else than a table.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func counts(t *placement.Table) map[string]int {
	n := make(map[string]int)
	for _, m := range t.Members {
		n[m.ID] = len(t.Owned(m.ID))
	}
	return n
}

// kept is how many partitions have the same owner in both.
func kept(a, b *placement.Table) int {
	n := 0
	for p := range a.Owners {
		x, _ := a.Owner(int32(p))
		if y, _ := b.Owner(int32(p)); x == y {
			n++
		}
	}
	return n
}
