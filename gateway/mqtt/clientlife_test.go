package mqtt

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// After a restart Mosquitto has the session but not the shared subscription.
func TestClientSurvivesARestartOfTheBroker(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, nil)
	m.restart(t)
	eventually(t, "connected and subscribed again", func() bool { return c.Stats().Connects.Load() == 2 && c.Ready() == nil })
	d := newDevice(t, m.addr, nil)
	if _, err := d.publish("devices/a/telemetry", 1, false, "after"); err != nil {
		t.Fatal(err)
	}
	if got := o.await(t, 1); string(got[0].Payload) != "after" {
		t.Errorf("got %s", got[0].Payload)
	}
}

// Run ends with everything received acknowledged, and what is published meanwhile waits for the
// next start.
func TestClientDrainsAndKeepsItsSession(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(holdAll)
	c, stop := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	if _, err := d.publish("devices/a/telemetry", 1, false, "before"); err != nil {
		t.Fatal(err)
	}
	held := o.await(t, 1)[0]
	ended := make(chan struct{})
	go func() { defer close(ended); stop() }()
	eventually(t, "reading stopped", func() bool { return c.link.conn.Load().paused.Load() })
	if _, err := d.publish("devices/a/telemetry", 1, false, "meanwhile"); err != nil {
		t.Fatal(err)
	}
	held.Reply.Done([]uint64{held.Token}, host.Released)
	<-ended
	if got := c.Stats().Acked.Load(); got != 1 {
		t.Errorf("acknowledged %d before the end, want 1", got)
	}
	if _, err := d.publish("devices/a/telemetry", 1, false, "away"); err != nil {
		t.Fatal(err)
	}
	next := newOwner(releaseAll)
	startClient(t, m.addr, next, nil)
	var got []string
	for _, g := range next.await(t, 2) {
		got = append(got, string(g.Payload))
	}
	if diff := cmp.Diff([]string{"meanwhile", "away"}, got); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
}

// A stalled inlet cannot keep Run from ending.
func TestClientEndsWhileTheInletStalls(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(func(host.Message) (host.Verdict, bool) { return host.Busy, true })
	c, stop := startClient(t, m.addr, o, func(cfg *Config) { cfg.DrainTimeout = 50 * time.Millisecond })
	d := newDevice(t, m.addr, nil)
	for i, gate := range []chan struct{}{nil, make(chan struct{})} { // one is delivered again, one blocks the reader
		o.block(gate)
		if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		o.await(t, 1)
	}
	eventually(t, "both held", func() bool { return c.Stats().Unacked.Load() == 2 })
	stop()
	if got := c.Stats().Acked.Load(); got != 0 {
		t.Errorf("acknowledged %d, want none", got)
	}
}

func TestClientLeavesForGood(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(releaseAll)
	c, stop := startClient(t, m.addr, o, nil)
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, m.addr, nil)
	_ = c.link.conn.Load().Conn.Close() // a new connection does not subscribe again
	eventually(t, "connected again", func() bool { _, up, _ := c.link.state(); return up && c.Stats().Connects.Load() == 2 })
	if err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.publish("devices/a/telemetry", 1, false, "too late"); err != nil {
		t.Fatal(err)
	}
	never(t, "a message after Leave", 200*time.Millisecond, func() bool { return len(o.received()) > 0 })
	stop()
	if _, err := d.publish("devices/a/telemetry", 1, false, "for others"); err != nil {
		t.Fatal(err)
	}
	next := newOwner(releaseAll)
	startClient(t, m.addr, next, nil)
	never(t, "a session survived Leave", 300*time.Millisecond, func() bool { return len(next.received()) > 0 })
}

// A node that gave its share up takes one again, also if giving up had failed.
func TestClientReturns(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i, ctx := range []context.Context{t.Context(), ended} {
		if err := c.Leave(ctx); (err == nil) != (ctx.Err() == nil) {
			t.Fatalf("leave: %v", err)
		}
		if c.Ready() == nil {
			t.Error("ready without a share")
		}
		c.Return()
		eventually(t, "subscribed again", func() bool { return c.Ready() == nil })
		if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		o.await(t, i+1)
	}
}

func TestClientPublishes(t *testing.T) {
	m := startMosquitto(t, recommended)
	c, _ := startClient(t, m.addr, newOwner(releaseAll), nil)
	d := newDevice(t, m.addr, nil)
	d.subscribe(t, "devices/a/commands/+", 1)
	props := &Properties{
		ContentType: "application/json", ResponseTopic: "r", CorrelationData: []byte{1, 2},
		Expiry: 1500 * time.Millisecond, User: []UserProperty{{"k", "v"}},
	}
	for qos := range byte(3) {
		if err := c.Publish(t.Context(), "devices/a/commands/go", qos, false, []byte("{}"), props); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "commands", func() bool { return len(d.received()) == 3 })
	checkCommand(t, d.received()[1])
}

func checkCommand(t *testing.T, p *paho.Publish) {
	t.Helper()
	got := p.Properties
	if got.ContentType != "application/json" || got.ResponseTopic != "r" || string(got.CorrelationData) != "\x01\x02" ||
		got.MessageExpiry == nil || *got.MessageExpiry > 2 || got.User.Get("k") != "v" || p.QoS != 1 {
		t.Errorf("command arrived as %+v %+v", p, got)
	}
}
