package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/doppel-iot/doppel/actors/host"
)

// hasSession asks the broker for a client id's session, and leaves it.
func hasSession(t *testing.T, addr, id string) (present bool) {
	t.Helper()
	c, err := New(Config{URLs: []string{addr}, ClientID: id}, nil, nil, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	err = c.errand(t.Context(), func(ctx context.Context, e *errand) error {
		week := uint32(7 * 24 * 3600)
		ack, err := e.connect(ctx, &paho.Connect{ClientID: id, Properties: &paho.ConnectProperties{SessionExpiryInterval: &week}}, true)
		if err != nil {
			return err
		}
		present = ack.SessionPresent
		if !present { // asking made one
			var never uint32
			return e.close(&paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: &never}})
		}
		return e.close(&paho.Disconnect{})
	})
	if err != nil {
		t.Fatal(err)
	}
	return present
}

func publishMany(t *testing.T, addr string, from, to int) {
	t.Helper()
	d := newDevice(t, addr, nil)
	work := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range work {
				if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		work <- i
	}
	close(work)
	wg.Wait()
}

func distinct(msgs ...[]host.Message) int {
	seen := map[string]bool{}
	for _, list := range msgs {
		for _, m := range list {
			seen[string(m.Payload)] = true
		}
	}
	return len(seen)
}

func TestAdoptTakesWhatADeadNodeLeft(t *testing.T) {
	m := startMosquitto(t, recommended)
	p := startProxy(t, m.addr)
	dead := newOwner(holdAll)
	startClient(t, p.addr(), dead, func(c *Config) { c.ReceiveMaximum, c.DrainTimeout = 500, time.Millisecond })
	publishMany(t, m.addr, 0, 2500)
	p.cut() // killed
	publishMany(t, m.addr, 2500, 5000)

	s := newSlow(3 * time.Millisecond)
	start := time.Now()
	cfg := Config{URLs: []string{m.addr}, ClientID: "node-1", ReceiveMaximum: 500}
	if err := Adopt(t.Context(), cfg, s.owner, s.owner, testLog(t)); err != nil {
		t.Fatal(err)
	}
	t.Logf("adopted %d messages within %s", s.distinct(), time.Since(start))
	if got := s.distinct(); got != 5000 {
		t.Errorf("%d messages released, want all 5000", got)
	}
	if hasSession(t, m.addr, "node-1") {
		t.Error("the session is still there")
	}
	start = time.Now()
	if err := Adopt(t.Context(), cfg, s.owner, s.owner, testLog(t)); err != nil { // nothing is left to adopt
		t.Error(err)
	}
	if took := time.Since(start); took > leaveQuiet {
		t.Errorf("nothing to adopt took %s", took)
	}
	if hasSession(t, m.addr, "node-1") {
		t.Error("adopting nothing left a session behind")
	}
}

// Adopt against a dead broker, with an inlet that does not release, or stopped by its context leaves the
// session alone.
func TestAdoptGivesUp(t *testing.T) {
	m := startMosquitto(t, recommended)
	p := startProxy(t, m.addr)
	startClient(t, p.addr(), newOwner(holdAll), func(c *Config) { c.DrainTimeout = time.Millisecond })
	publishMany(t, m.addr, 0, 100)
	p.cut()

	cfg := Config{URLs: []string{m.addr}, ClientID: "node-1"}
	o := newOwner(holdAll)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Adopt(ctx, cfg, o, o, testLog(t)) }()
	o.await(t, 100)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("adoption stopped: %v, want %v", err, context.Canceled)
	}
	gone := cfg
	gone.URLs = []string{p.addr()}
	if err := Adopt(t.Context(), gone, o, o, testLog(t)); err == nil {
		t.Error("adopted from a broker that is not there")
	}
	next := newOwner(releaseAll)
	if err := Adopt(t.Context(), cfg, next, next, testLog(t)); err != nil {
		t.Fatal(err)
	}
	if got := distinct(next.received()); got != 100 {
		t.Errorf("the next adoption got %d messages, want all 100", got)
	}
}

// permits is a node's permission to connect.
type permits struct {
	asked atomic.Int64
	mu    sync.Mutex
	open  chan struct{}
}

func newPermits() *permits {
	p := &permits{open: make(chan struct{})}
	close(p.open)
	return p
}

func (p *permits) wait(ctx context.Context) error {
	p.asked.Add(1)
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *permits) revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *permits) grant() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

func TestClientConnectsOnlyWithAPermit(t *testing.T) {
	m := startMosquitto(t, recommended)
	p := newPermits()
	p.revoke()
	o := newOwner(releaseAll)
	c, err := New(Config{URLs: []string{m.addr}, ClientID: "node-1", Permit: p.wait, ConnectTimeout: 100 * time.Millisecond}, o, o, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, c.Run)
	eventually(t, "asked", func() bool { return p.asked.Load() == 1 })
	never(t, "connected or asked again", 300*time.Millisecond, func() bool {
		return c.Stats().Connects.Load() > 0 || p.asked.Load() > 1
	})
	p.grant()
	eventually(t, "ready", func() bool { return c.Ready() == nil })
	if got := p.asked.Load(); got != 1 {
		t.Errorf("connected at attempt %d, want the first: waiting is no part of the time to connect", got)
	}
	p.revoke()
	_ = c.link.conn.Load().Conn.Close()
	eventually(t, "asked again", func() bool { return p.asked.Load() == 2 })
	begun := time.Now()
	stop() // while it waits
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// A stopped node is adopted and comes back. Without a permit it leaves the adopter alone.
func TestZombieLeavesItsAdopterAlone(t *testing.T) {
	m := startMosquitto(t, recommended)
	p, permit := startProxy(t, m.addr), newPermits()
	zombie := newOwner(holdAll)
	c, _ := startClient(t, p.addr(), zombie, func(cfg *Config) { cfg.Permit, cfg.DrainTimeout = permit.wait, time.Millisecond })
	publishMany(t, m.addr, 0, 300)
	zombie.await(t, 300)
	p.freeze(true)
	permit.revoke()
	publishMany(t, m.addr, 300, 600)

	o := newOwner(holdAll)
	ended := make(chan error, 1)
	go func() {
		ended <- Adopt(t.Context(), Config{URLs: []string{m.addr}, ClientID: "node-1"}, o, o, testLog(t))
	}()
	held := o.await(t, 600)
	p.freeze(false)
	eventually(t, "the zombie knows", func() bool { return c.Ready() != nil && permit.asked.Load() == 2 })
	never(t, "the adopter thrown out", 500*time.Millisecond, func() bool { return len(ended) > 0 || c.Stats().Connects.Load() > 1 })
	for _, g := range held {
		g.Reply.Done([]uint64{g.Token}, host.Released)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, g := range zombie.received() { // late, and of no consequence
		g.Reply.Done([]uint64{g.Token}, host.Released)
	}
	permit.grant()
	eventually(t, "the node back", func() bool { return c.Ready() == nil })
	publishMany(t, m.addr, 600, 700)
	eventually(t, "the new messages at the node", func() bool { return distinct(zombie.received(), o.received()) == 700 })
	if got := len(o.received()); got != 600 {
		t.Errorf("the adopter got %d messages, want 600", got)
	}
}

// An owner that may come back takes its session from the adopter, with what is not acknowledged.
func TestOwnerTakesItsSessionBack(t *testing.T) {
	m := startMosquitto(t, recommended)
	p := startProxy(t, m.addr)
	startClient(t, p.addr(), newOwner(holdAll), func(c *Config) { c.DrainTimeout = time.Millisecond })
	publishMany(t, m.addr, 0, 300)
	p.cut()
	o := newOwner(holdAll)
	ended := make(chan error, 1)
	go func() {
		ended <- Adopt(t.Context(), Config{URLs: []string{m.addr}, ClientID: "node-1"}, o, o, testLog(t))
	}()
	o.await(t, 300)
	back := newOwner(releaseAll)
	startClient(t, m.addr, back, nil)
	if err := <-ended; !errors.Is(err, ErrTakenOver) {
		t.Errorf("adoption ended with %v, want %v", err, ErrTakenOver)
	}
	if got := distinct(back.await(t, 300)); got != 300 {
		t.Errorf("the owner got %d messages back, want 300", got)
	}
	publishMany(t, m.addr, 300, 301)
	back.await(t, 301)
}

// A node leaves under load: each message acknowledged to its publisher is with one of the two, and
// nothing stays in the session of the one that left, even if its link breaks while it leaves.
func TestLeaveUnderLoad(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("broken=%v", broken), func(t *testing.T) {
			m := startMosquitto(t, recommended)
			stays, leaves := newSlow(5*time.Millisecond), newSlow(5*time.Millisecond)
			startClient(t, m.addr, stays.owner, func(c *Config) { c.ClientID = "node-2" })
			c, stop := startClient(t, m.addr, leaves.owner, nil)
			f := startFleet(t, m.addr, 4, 16, time.Millisecond)
			eventually(t, "both busy", func() bool { return stays.distinct() > 500 && leaves.distinct() > 500 })
			left := make(chan error, 1)
			go func() { left <- c.Leave(t.Context()) }()
			if broken {
				eventually(t, "leaving", func() bool { return c.Ready() != nil })
				_ = c.link.conn.Load().Conn.Close()
			}
			if err := <-left; err != nil {
				t.Fatal(err)
			}
			at := leaves.distinct()
			stop()
			before := len(f.published())
			eventually(t, "more messages", func() bool { return len(f.published()) > before+200 })
			f.stop()
			all := f.published()
			eventually(t, "all messages", func() bool { return len(leaves.missing(stays.missing(all))) == 0 })
			if got := leaves.distinct(); got != at {
				t.Errorf("%d messages came after Leave", got-at)
			}
			if hasSession(t, m.addr, "node-1") {
				t.Error("the session is still there")
			}
			t.Logf("%d messages, %d by the node that left", len(all), at)
		})
	}
}
