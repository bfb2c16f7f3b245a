package group

import (
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// leeway is what a busy machine may add to a time.
const leeway = 3 * time.Second

func TestCrash(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b := c.start(Config{Node: "b", Capacity: 1})
		d := c.start(Config{Node: "d", Capacity: 1})
		three := c.await("three", func(t *placement.Table) bool { return len(t.Members) == 3 }, a, b, d)
		d.crash()
		start := time.Now()
		two := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		took := time.Since(start)
		t.Logf("gone after %v", took)
		if took > sessionTimeout+leeway {
			t.Errorf("took %v, want at most %v", took, sessionTimeout+leeway)
		}
		if got, want := kept(three, two), partitions-len(three.Owned("d")); got != want {
			t.Errorf("%d partitions stayed, want %d", got, want)
		}
	})
}

// A node that starts again at once finds its old self in the group, and has its partitions back when
// that is out of it.
func TestCrashAndRestart(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		var told journal
		a := c.start(Config{Node: "a", Capacity: 1, Logger: told.logger()})
		b := c.start(Config{Node: "b", Incarnation: 1, Capacity: 1})
		was := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		b.crash()
		start := time.Now()
		b = c.start(Config{Node: "b", Incarnation: 2, Capacity: 1})
		now := c.await("the later run", func(t *placement.Table) bool { m, _ := t.Member("b"); return m.Incarnation == 2 }, a, b)
		t.Logf("back after %v", time.Since(start))
		if got := kept(was, now); got != partitions {
			t.Errorf("%d partitions stayed, want %d", got, partitions)
		}
		if told.has("level=ERROR") {
			t.Error("it is taken for two nodes")
		}
	})
}

// to a newer table.
func TestPaused(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b, net := c.gated(Config{Node: "b", Capacity: 1})
		both := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		net.freeze()
		start := time.Now()
		alone := c.shares(map[string]int{"a": 16}, a)
		if took := time.Since(start); took > sessionTimeout+leeway {
			t.Errorf("took %v, want at most %v", took, sessionTimeout+leeway)
		}
		if got := b.Table(); got.Generation != both.Generation {
			t.Errorf("its table changed to %+v", got)
		}
		if d := time.Since(b.Heard()); d < sessionTimeout-leeway {
			t.Errorf("it heard from the group %v ago", d)
		}
		net.thaw()
		again := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		if got := kept(alone, again); got != 8 {
			t.Errorf("%d partitions stayed, want 8", got)
		}
		until(t, "it hears from the group", func() bool { return time.Since(b.Heard()) < 2*heartbeatInterval })
	})
}

// A pause shorter than the session costs nothing, not even a rebalance.
func TestPausedShortly(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b, net := c.gated(Config{Node: "b", Capacity: 1})
		both := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		net.freeze()
		until(t, "an answer is overdue", func() bool { return time.Since(b.Heard()) > sessionTimeout/2 })
		net.thaw()
		until(t, "it hears from the group", func() bool { return time.Since(b.Heard()) < 2*heartbeatInterval })
		if a.Table().Generation != both.Generation {
			t.Errorf("got generation %d after %d", a.Table().Generation, both.Generation)
		}
	})
}

// Broken connections that can be made again cost nothing either.
func TestConnectionsBreak(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a, net := c.gated(Config{Node: "a", Capacity: 1})
		one := c.shares(map[string]int{"a": 16}, a)
		for range 3 {
			net.sever()
			net.mend()
			broken := time.Now()
			until(t, "it hears from the group", func() bool { return a.Heard().After(broken) })
		}
		if got := a.Table(); got != one {
			t.Errorf("got generation %d after %d", got.Generation, one.Generation)
		}
	})
}

func TestHungMemberDoesNotHoldARebalanceUp(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b, net := c.gated(Config{Node: "b", Capacity: 1})
		c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		net.freeze()
		d := c.start(Config{Node: "d", Capacity: 1})
		start := time.Now()
		// Meanwhile the others are members: they wait for no heartbeat.
		var longest time.Duration
		c.await("the new node and not the hung one", func(t *placement.Table) bool {
			longest = max(longest, time.Since(a.Heard()))
			return t.Has("d") && !t.Has("b")
		}, a, d)
		took := time.Since(start)
		t.Logf("took %v, heard at least every %v", took, longest)
		if took > rebalanceTimeout+leeway {
			t.Errorf("took %v, want at most %v", took, rebalanceTimeout+leeway)
		}
		if longest > rebalanceTimeout/2 {
			t.Errorf("a member was without an answer for %v while it waited", longest)
		}
		net.thaw()
		c.await("all", func(t *placement.Table) bool { return len(t.Members) == 3 }, a, b, d)
	})
}

// Kafka is away for longer than the session.
func TestKafkaUnreachable(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a, one := c.gated(Config{Node: "a", Capacity: 1})
		b, two := c.gated(Config{Node: "b", Capacity: 1})
		both := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		one.sever()
		two.sever()
		until(t, "sessions are over", func() bool { return time.Since(a.Heard()) > sessionTimeout+leeway/2 })
		if a.Table() != both {
			t.Errorf("a table came from nowhere: %+v", a.Table())
		}
		back := time.Now()
		one.mend()
		two.mend()
		again := c.await("both again", func(t *placement.Table) bool {
			return t.Generation > both.Generation && len(t.Members) == 2
		}, a, b)
		t.Logf("back after %v", time.Since(back))
		if got := kept(both, again); got != partitions {
			t.Errorf("%d partitions stayed, want %d", got, partitions)
		}
	})
}

func TestKafkaComesLate(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		var told journal
		net := newGate()
		net.sever()
		a := c.start(Config{Node: "a", Capacity: 1, Logger: told.logger()}, kgo.Dialer(net.dial))
		t.Cleanup(net.close)
		until(t, "it says so", func() bool { return told.has("level=WARN", "connection refused") })
		net.mend()
		c.shares(map[string]int{"a": 16}, a)
		until(t, "it says so", func() bool { return told.has("level=INFO", "answers again") })
	})
}

func TestStopWhileKafkaIsUnreachable(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a, net := c.gated(Config{Node: "a", Capacity: 1})
		c.shares(map[string]int{"a": 16}, a)
		net.freeze()
		start := time.Now()
		a.stop()
		if took := time.Since(start); took > 2*answerTimeout {
			t.Errorf("took %v, want at most %v", took, 2*answerTimeout)
		}
	})
}

// Who stops while a join waits for others leaves at once, and nobody waits for it.
func TestStopWhileJoining(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Node: "a", Capacity: 1})
		b, net := c.gated(Config{Node: "b", Capacity: 1})
		c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		net.freeze()
		d := c.start(Config{Node: "d", Capacity: 1})
		until(t, "it has a seat", func() bool { return d.current().member != "" })
		start := time.Now()
		d.stop()
		if took := time.Since(start); took > leeway {
			t.Errorf("took %v", took)
		}
		c.shares(map[string]int{"a": 16}, a)
	})
}

// Kafka forgets a group that is empty, and the generations of one made anew start again; those of tables
// do not for anyone who has seen some.
func TestForgottenGroup(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		a, net := c.gated(Config{Node: "a", Capacity: 1})
		for n := range 4 {
			a.SetCapacity(n + 2)
			c.await("the capacity", func(t *placement.Table) bool { return t.Members[0].Capacity == n+2 }, a)
		}
		high := a.Table().Generation
		net.sever()
		adm := c.admin()
		until(t, "the group can be deleted", func() bool {
			got, err := adm.DeleteGroups(t.Context(), c.group)
			return err == nil && got[c.group].Err == nil
		})
		c.mu.Lock()
		clear(c.tables) // they are of the group that was
		c.mu.Unlock()
		b := c.start(Config{Node: "b", Capacity: 1})
		if low := c.shares(map[string]int{"b": 16}, b).Generation; low >= high {
			t.Fatalf("the group was not forgotten: generation %d after %d", low, high)
		}
		net.mend()
		if got := c.await("both", func(t *placement.Table) bool { return len(t.Members) == 2 }, a, b).Generation; got <= high {
			t.Errorf("got generation %d after %d", got, high)
		}
	})
}

// faults are what a broker answers instead of what is right.
type faults struct {
	mu   sync.Mutex
	of   map[kmsg.Key]*kerr.Error
	left map[kmsg.Key]int
	made int
}

// faulty is a cluster on such a broker.
func faulty(t *testing.T) (*cluster, *faults) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	f := &faults{of: map[kmsg.Key]*kerr.Error{}, left: map[kmsg.Key]int{}}
	k.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		resp := f.answer(req)
		return resp, nil, resp != nil
	})
	return &cluster{t: t, addr: k.ListenAddrs()[0], group: "g", tables: map[int64]*placement.Table{}}, f
}

// set has the next count requests of a kind answered with err.
func (f *faults) set(key kmsg.Key, err *kerr.Error, count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of[key], f.left[key] = err, count
}

func (f *faults) over(key kmsg.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left[key] == 0
}

func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made
}

// answer is nil if the broker is to answer itself.
func (f *faults) answer(req kmsg.Request) kmsg.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := kmsg.Key(req.Key())
	if f.left[key] == 0 {
		return nil
	}
	f.left[key]--
	f.made++
	switch r := req.ResponseKind().(type) {
	case *kmsg.JoinGroupResponse:
		r.ErrorCode = f.of[key].Code
		return r
	case *kmsg.SyncGroupResponse:
		r.ErrorCode = f.of[key].Code
		return r
	case *kmsg.HeartbeatResponse:
		r.ErrorCode = f.of[key].Code
		return r
	default:
		return nil
	}
}

// Whatever the coordinator answers, Run goes on until it is a member.
func TestNoErrorIsFinal(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		for _, code := range []*kerr.Error{
			kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.UnknownMemberID,
			kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.GroupAuthorizationFailed, kerr.InconsistentGroupProtocol,
			kerr.InvalidSessionTimeout, kerr.GroupMaxSizeReached, kerr.FencedInstanceID, kerr.UnknownServerError,
		} {
			t.Run(key.Name()+"/"+code.Message, func(t *testing.T) {
				t.Parallel()
				c, f := faulty(t)
				f.set(key, code, 3)
				a := c.start(Config{Node: "a", Capacity: 1})
				c.shares(map[string]int{"a": 16}, a)
				until(t, "the errors are over", func() bool { return f.over(key) })
				over := time.Now()
				until(t, "it is a member", func() bool { return a.Heard().After(over) })
			})
		}
	}
}

// Only what the coordinator answers to a member is a sign of the membership.
func TestHeardIsOfAMember(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.GroupAuthorizationFailed, kerr.UnknownServerError} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			c, f := faulty(t)
			a := c.start(Config{Node: "a", Capacity: 1})
			c.shares(map[string]int{"a": 16}, a)
			first := a.Heard()
			until(t, "it beats", func() bool { return a.Heard().After(first) })
			f.set(kmsg.Heartbeat, code, 1<<30)
			f.set(kmsg.JoinGroup, kerr.GroupAuthorizationFailed, 1<<30)
			since := time.Now()
			until(t, "it was told so", func() bool { return f.count() >= 4 })
			if got := a.Heard(); got.After(since) {
				t.Errorf("heard %v after the last good answer", got.Sub(since))
			}
			f.set(kmsg.JoinGroup, nil, 0)
			f.set(kmsg.Heartbeat, nil, 0)
			until(t, "it is a member", func() bool { return a.Heard().After(since) })
		})
	}
}
