package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/cluster/placement"
)

func TestJoinAndLeave(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		one := c.shares(map[string]int{"a": 16}, a)
		b := c.start(Config{Node: "b", Capacity: 1})
		two := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		if got := kept(one, two); got != 8 {
			t.Errorf("join: %d partitions stayed, want 8", got)
		}
		d := c.start(Config{Node: "d", Capacity: 2})
		three := c.shares(map[string]int{"a": 4, "b": 4, "d": 8}, a, b, d)
		if got := kept(two, three); got != 8 {
			t.Errorf("join: %d partitions stayed, want 8", got)
		}
		b.stop()
		start := time.Now()
		four := c.shares(map[string]int{"a": 5, "d": 11}, a, d)
		if got := kept(three, four); got != 12 {
			t.Errorf("leave: %d partitions stayed, want 12", got)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("leave: took %v", d)
		}
	})
}

func TestDrain(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b := c.start(Config{Node: "b", Capacity: 1})
		both := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		a.SetCapacity(0)
		drained := c.shares(map[string]int{"a": 0, "b": 16}, a, b)
		if got := kept(both, drained); got != 8 {
			t.Errorf("%d partitions stayed, want 8", got)
		}
		a.SetCapacity(3)
		c.shares(map[string]int{"a": 12, "b": 4}, a, b)
		a.SetCapacity(-1)
		c.shares(map[string]int{"a": 0, "b": 16}, a, b)
		b.SetCapacity(0) // nobody is left: somebody must do it
		c.shares(map[string]int{"a": 8, "b": 8}, a, b)
	})
}

// A node that starts with capacity 0 is a member all the same.
func TestJoinDrained(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b := c.start(Config{Node: "b"})
		c.shares(map[string]int{"a": 16, "b": 0}, a, b)
	})
}

func TestTwoUnderOneID(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		var told, other journal
		a := c.start(Config{Node: "a", Incarnation: 1, Capacity: 1, Logger: told.logger()})
		c.shares(map[string]int{"a": 16}, a)
		again := c.start(Config{Node: "a", Incarnation: 2, Capacity: 1, Logger: other.logger()})
		c.await("the later run", func(t *placement.Table) bool { m, _ := t.Member("a"); return m.Incarnation == 2 }, a, again)
		for _, j := range []*journal{&told, &other} {
			until(t, "an error is logged", func() bool {
				return j.has("level=ERROR", "node=a", "another node id")
			})
		}
		again.stop()
		c.await("the earlier run", func(t *placement.Table) bool { m, _ := t.Member("a"); return m.Incarnation == 1 }, a)
	})
}

// journal is a log.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

// has reports whether one line has all words.
func (j *journal) has(words ...string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.b.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

func TestCommit(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		c.makeTopic()
		a := c.start(Config{Node: "a", Capacity: 1})
		c.shares(map[string]int{"a": 16}, a)
		offsets := map[int32]int64{0: 7, 3: 0, 15: 1 << 40}
		if err := a.Commit(t.Context(), offsets); err != nil {
			t.Fatal(err)
		}
		if err := a.Commit(t.Context(), nil); err != nil {
			t.Errorf("of nothing: %v", err)
		}
		got, err := c.admin().FetchOffsets(t.Context(), c.group)
		if err != nil {
			t.Fatal(err)
		}
		have := map[int32]int64{}
		for p, o := range got[topic] {
			have[p] = o.At
		}
		if diff := cmp.Diff(offsets, have); diff != "" {
			t.Errorf("committed (-want +got)\n%s", diff)
		}
		a.stop()
		if err := a.Commit(t.Context(), offsets); !errors.Is(err, ErrNotMember) {
			t.Errorf("after leaving: got %v, want %v", err, ErrNotMember)
		}
	})
}

// Kafka's tools see the members and what is whose.
func TestToolsSeeTheGroup(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b := c.start(Config{Node: "b", Capacity: 1})
		table := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		got, err := c.admin().DescribeGroups(t.Context(), c.group)
		if err != nil {
			t.Fatal(err)
		}
		g := got[c.group]
		if g.Err != nil || g.State != "Stable" || g.ProtocolType != "consumer" {
			t.Fatalf("got %v, %s, %s", g.Err, g.State, g.ProtocolType)
		}
		want := [][]int32{table.Owned("a"), table.Owned("b")}
		var have [][]int32
		for _, m := range g.Members {
			if ca, ok := m.Assigned.AsConsumer(); ok {
				for _, tp := range ca.Topics {
					have = append(have, tp.Partitions)
				}
			}
		}
		slices.SortFunc(have, func(x, y []int32) int { return int(x[0] - y[0]) })
		slices.SortFunc(want, func(x, y []int32) int { return int(x[0] - y[0]) })
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("assigned (-want +got)\n%s", diff)
		}
	})
}

// requests counts the requests of a client by name.
type requests struct {
	mu    sync.Mutex
	count map[string]int
}

var _ kgo.HookBrokerWrite = (*requests)(nil)

func (r *requests) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[kmsg.NameForKey(key)]++
}

func (r *requests) of(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[name]
}

func TestFetchesNothing(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		rs := &requests{count: map[string]int{}}
		a := c.start(Config{Node: "a", Capacity: 1}, kgo.WithHooks(rs))
		c.shares(map[string]int{"a": 16}, a)
		until(t, "it beats", func() bool { return rs.of("Heartbeat") >= 5 })
		a.stop()
		rs.mu.Lock()
		defer rs.mu.Unlock()
		for name, n := range rs.count {
			switch name {
			case "ApiVersions", "Metadata", "FindCoordinator", "JoinGroup", "SyncGroup", "Heartbeat", "LeaveGroup":
			default:
				t.Errorf("%d requests of %s", n, name)
			}
		}
		if rs.count["SyncGroup"] != 1 || rs.count["LeaveGroup"] != 1 { // joins are more where the coordinator was not there yet
			t.Errorf("got %v, want one generation: one sync, one leave", rs.count)
		}
	})
}

func TestRunWithContextEnded(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		g, err := New(Config{
			Connection: []kgo.Opt{kgo.SeedBrokers(c.addr)},
			Group:      c.group, Topic: topic, Partitions: partitions, Node: "a", Incarnation: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Commit(t.Context(), map[int32]int64{0: 1}); !errors.Is(err, ErrNotMember) {
			t.Errorf("commit: got %v, want %v", err, ErrNotMember)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		if g.Table() != nil || !g.Heard().IsZero() {
			t.Errorf("got table %v, heard %v, want none", g.Table(), g.Heard())
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := Config{Connection: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, Group: "g", Topic: "t", Partitions: 1, Node: "a"}
	for name, spoil := range map[string]func(*Config){
		"group":      func(c *Config) { c.Group = "" },
		"topic":      func(c *Config) { c.Topic = "" },
		"node":       func(c *Config) { c.Node = "" },
		"partitions": func(c *Config) { c.Partitions = 0 },
		"capacity":   func(c *Config) { c.Capacity = -1 },
		"connection": func(c *Config) { c.Connection = []kgo.Opt{kgo.SeedBrokers()} },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

// admin asks the cluster about the group.
func (c *cluster) admin() *kadm.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addr), kgo.DisableClientMetrics())
	if err != nil {
		c.t.Fatal(fmt.Errorf("admin: %w", err))
	}
	c.t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// makeTopic is for what the broker refuses where there is no topic. A fake one has it.
func (c *cluster) makeTopic() {
	c.t.Helper()
	adm := c.admin()
	_, err := adm.CreateTopic(c.t.Context(), partitions, 1, nil, topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if _, err := adm.DeleteTopic(context.Background(), topic); err != nil {
			c.t.Error(err)
		}
	})
}
