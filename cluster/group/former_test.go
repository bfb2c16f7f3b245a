package group

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// A node that knows what it was called before its crash need not wait for that session to run out.
func TestCrashAndRestartWithItsFormerSeat(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		var seat atomic.Pointer[string]
		a := c.start(Config{Node: "a", Capacity: 1})
		b := c.start(Config{Node: "b", Incarnation: 1, Capacity: 1, Seated: func(member string) { seat.Store(&member) }})
		was := c.shares(map[string]int{"a": 8, "b": 8}, a, b)
		b.crash()
		start := time.Now()
		b = c.start(Config{Node: "b", Incarnation: 2, Capacity: 1, Former: *seat.Load()})
		now := c.await("the later run", func(t *placement.Table) bool { m, _ := t.Member("b"); return m.Incarnation == 2 }, a, b)
		if took := time.Since(start); took > rebalanceTimeout-time.Second {
			t.Errorf("took %v: its former session was waited for", took)
		}
		if got := kept(was, now); got != partitions {
			t.Errorf("%d partitions stayed, want %d", got, partitions)
		}
	})
}

// A seat that is gone already is no trouble.
func TestFormerIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, c *cluster) {
		rs := &requests{count: map[string]int{}}
		a := c.start(Config{Node: "a", Capacity: 1, Former: "nobody"}, kgo.WithHooks(rs))
		c.shares(map[string]int{"a": 16}, a)
		since := a.Heard()
		until(t, "it has had the time to ask again", func() bool { return a.Heard().Sub(since) > 3*firstRest })
		if rs.of("LeaveGroup") == 0 {
			t.Error("it did not ask")
		}
		asked := rs.of("LeaveGroup") // more than once where the coordinator was not there yet
		since = a.Heard()
		until(t, "it has had the time to ask again", func() bool { return a.Heard().Sub(since) > 3*firstRest })
		if got := rs.of("LeaveGroup"); got != asked {
			t.Errorf("it asked %d times, and then %d more", asked, got-asked)
		}
	})
}

// A node that is stopped for longer than its session is out of the group without knowing, and comes back
