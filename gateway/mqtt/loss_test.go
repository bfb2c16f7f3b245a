package mqtt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// TestNothingAcknowledgedIsLost publishes to a real broker while the node's link is cut again and
// again, verdicts come late, out of order and not always good, and half way the node is replaced by
// a new process with its client id.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	m := startMosquitto(t, recommended)
	released := &tally{seen: map[string]int{}}
	o := newOwner(holdAll)
	o.verdict = func(msg host.Message) (host.Verdict, bool) {
		v := host.Released
		if rand.N(20) == 0 {
			v = host.Busy
		}
		time.AfterFunc(rand.N(20*time.Millisecond), func() {
			if v == host.Released {
				released.add(string(msg.Device) + "/" + string(msg.Payload))
			}
			msg.Reply.Done([]uint64{msg.Token}, v)
		})
		return 0, false
	}
	small := func(c *Config) { c.ReceiveMaximum, c.Limit = 64, 128 }
	c, stop := startClient(t, m.addr, o, small)

	const devices, cuts = 8, 5
	cutting, enough := context.WithCancel(t.Context())
	defer enough()
	var wg sync.WaitGroup
	var acked atomic.Int64
	for i := range devices {
		d := newDevice(t, m.addr, nil)
		wg.Go(func() {
			for n := 0; cutting.Err() == nil; n++ {
				if _, err := d.publish(fmt.Sprintf("devices/d%d/telemetry", i), 1, false, strconv.Itoa(n)); err != nil {
					t.Error(err)
					return
				}
				acked.Add(1)
				time.Sleep(rand.N(10 * time.Millisecond)) // a device's pace
			}
		})
	}
	for range cuts {
		eventually(t, "connected again", func() bool { return c.Ready() == nil })
		before := c.Stats().Connects.Load()
		eventually(t, "under way", func() bool { return c.Stats().Unacked.Load() > 20 })
		_ = c.link.conn.Load().Conn.Close()
		eventually(t, "new connection", func() bool { return c.Stats().Connects.Load() > before })
	}
	enough()
	wg.Wait()
	stop()
	startClient(t, m.addr, o, small)
	eventually(t, "all messages", func() bool { return int64(released.distinct()) == acked.Load() })
	t.Logf("%d messages, %d connections, %d verdicts too late", acked.Load(), c.Stats().Connects.Load(), c.Stats().Stale.Load())
	if c.Stats().Stale.Load() == 0 {
		t.Error("no verdict came for a lost connection, the test proves nothing")
	}
}

type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (l *tally) add(k string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[k]++
}

func (l *tally) distinct() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}
