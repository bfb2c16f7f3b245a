package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/doppel-iot/doppel/actors/host"
)

// slow is an inlet that releases each message after a while, and knows which it has released.
type slow struct {
	*owner
	tally
}

func newSlow(most time.Duration) *slow {
	s := &slow{owner: newOwner(nil), tally: tally{seen: map[string]int{}}}
	s.verdict = func(m host.Message) (host.Verdict, bool) {
		time.AfterFunc(rand.N(most), func() {
			s.add(string(m.Device) + "/" + string(m.Payload))
			m.Reply.Done([]uint64{m.Token}, host.Released)
		})
		return 0, false
	}
	return s
}

func (l *tally) missing(keys []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, k := range keys {
		if l.seen[k] == 0 {
			out = append(out, k)
		}
	}
	return out
}

// fleet publishes until it is stopped, and knows what was acknowledged to it.
type fleet struct {
	mu    sync.Mutex
	acked []string
	stop  func()
}

// startFleet makes devices that each have that many messages under way.
func startFleet(t *testing.T, addr string, devices, window int, pause time.Duration) *fleet {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{}
	var wg sync.WaitGroup
	f.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(f.stop)
	for i := range devices {
		d := newDevice(t, addr, nil)
		for w := range window {
			wg.Go(func() {
				for n := w; ctx.Err() == nil; n += window {
					if _, err := d.publish(fmt.Sprintf("devices/d%d/telemetry", i), 1, false, strconv.Itoa(n)); err != nil {
						t.Error(err)
						return
					}
					f.mu.Lock()
					f.acked = append(f.acked, fmt.Sprintf("d%d/%d", i, n))
					f.mu.Unlock()
					time.Sleep(pause) // a device's pace
				}
			})
		}
	}
	return f
}

func (f *fleet) published() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clip(f.acked)
}

// What a broker had acknowledged to its publishers before Clear was called is released when it returns,
// with room in the window and without, while messages keep coming.
func TestClearCoversWhatTheBrokerHas(t *testing.T) {
	for name, tc := range map[string]struct {
		window uint16
		pause  time.Duration
	}{
		"ample": {8192, 8 * time.Millisecond},
		// A dozen messages each 4 ms at most: of more, a backlog would grow with every round.
		"narrow": {12, 26 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMosquitto(t, recommended)
			s := newSlow(4 * time.Millisecond)
			c, _ := startClient(t, m.addr, s.owner, func(cfg *Config) { cfg.ReceiveMaximum, cfg.Limit = tc.window, 8192 })
			f := startFleet(t, m.addr, 4, 8, tc.pause)
			eventually(t, "under way", func() bool { return len(f.published()) > 100 })
			rounds, checked, longest := 300, 0, time.Duration(0)
			busy := 0
			for range rounds {
				before := f.published()
				if c.Stats().Unacked.Load() > 0 {
					busy++
				}
				start := time.Now()
				if err := c.Clear(t.Context()); err != nil {
					t.Fatal(err)
				}
				longest = max(longest, time.Since(start))
				if missing := s.missing(before[checked:]); len(missing) > 0 {
					t.Fatalf("cleared, but %d of %d are not released, such as %s", len(missing), len(before), missing[0])
				}
				checked = len(before)
			}
			t.Logf("%d messages, longest clear %s, %d rounds began with messages held", len(f.published()), longest, busy)
			if busy < rounds/4 {
				t.Errorf("only %d of %d rounds began with anything held, the test proves little", busy, rounds)
			}
			f.stop()
		})
	}
}

// A backlog that the broker holds back for want of window is not cleared before it is through.
func TestClearWaitsForABacklog(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(holdAll)
	c, _ := startClient(t, m.addr, o, func(cfg *Config) { cfg.ReceiveMaximum = 10 })
	d := newDevice(t, m.addr, nil)
	const all = 200
	for i := range all {
		if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	cleared := make(chan error, 1)
	go func() { cleared <- c.Clear(t.Context()) }()
	for done := 0; done < all; {
		held := o.await(t, done+1)
		select {
		case err := <-cleared:
			t.Fatalf("cleared (%v) with %d of %d released", err, done, all)
		default:
		}
		for _, g := range held[done:] {
			g.Reply.Done([]uint64{g.Token}, host.Released)
		}
		done = len(held)
	}
	if err := <-cleared; err != nil {
		t.Error(err)
	}
}

// While a link is dead nothing is cleared. Its death is noticed soon, and what was asked meanwhile is
// answered for what the next connection brings.
func TestClearThroughADeadLink(t *testing.T) {
	m := startMosquitto(t, recommended)
	p := startProxy(t, m.addr)
	s := newSlow(2 * time.Millisecond)
	c, _ := startClient(t, p.addr(), s.owner, nil)
	if err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.freeze(true)
	frozen := time.Now()
	d := newDevice(t, m.addr, nil)
	if _, err := d.publish("devices/a/telemetry", 1, false, "x"); err != nil {
		t.Fatal(err)
	}
	bound, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Clear(bound); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Clear through a dead link: %v, want it to wait", err)
	}
	if err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("cleared after %s", time.Since(frozen))
	if missing := s.missing([]string{"a/x"}); len(missing) > 0 {
		t.Error("cleared without what came while the link was dead")
	}
	if took := time.Since(frozen); took < silence || took > silence+5*time.Second {
		t.Errorf("a dead link was noticed after %s, want soon after %s", took, silence)
	}
	if got := c.Stats().Connects.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}

func TestClearEndsWithTheClient(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(holdAll)
	c, stop := startClient(t, m.addr, o, func(cfg *Config) { cfg.DrainTimeout = 10 * time.Millisecond })
	d := newDevice(t, m.addr, nil)
	if _, err := d.publish("devices/a/telemetry", 1, false, "x"); err != nil {
		t.Fatal(err)
	}
	o.await(t, 1)
	cleared := make(chan error, 1)
	go func() { cleared <- c.Clear(t.Context()) }()
	never(t, "cleared with a message held", 100*time.Millisecond, func() bool { return len(cleared) > 0 })
	stop()
	if err := <-cleared; !errors.Is(err, ErrNotConnected) {
		t.Errorf("Clear at the end of Run: %v, want %v", err, ErrNotConnected)
	}
}

// The embedded broker clears what devices have sent, whether they are still there or not.
func TestBrokerClears(t *testing.T) {
	s := newSlow(4 * time.Millisecond)
	b, addr, _ := startBroker(t, s.owner, nil)
	f := startFleet(t, addr, 4, 8, time.Millisecond)
	eventually(t, "under way", func() bool { return len(f.published()) > 100 })
	for range 100 {
		if err := b.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.stop()

	o := newOwner(holdAll)
	b, addr, _ = startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	ctx, cancel := context.WithCancel(t.Context())
	unanswered := make(chan struct{})
	go func() {
		defer close(unanswered)
		_, _ = d.Publish(ctx, &paho.Publish{Topic: "devices/a/telemetry", QoS: 1, Payload: []byte("x")})
	}()
	held := o.await(t, 1)[0]
	_ = d.conn.Close()
	cancel()
	<-unanswered
	eventually(t, "the device gone", func() bool { return b.Stats().Connected.Load() == 0 })
	cleared := make(chan error, 1)
	go func() { cleared <- b.Clear(t.Context()) }()
	never(t, "cleared with a message held", 100*time.Millisecond, func() bool { return len(cleared) > 0 })
	held.Reply.Done([]uint64{held.Token}, host.Released)
	if err := <-cleared; err != nil {
		t.Error(err)
	}
	b.leftovers.Range(func(any, any) bool { t.Error("a peer without messages is kept"); return false })
}
