package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

func startClient(t *testing.T, addr string, o *owner, change func(*Config)) (c *Client, stop func()) {
	t.Helper()
	cfg := Config{URLs: []string{"mqtt://" + addr}, ClientID: "node-1", DrainTimeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg, o, o, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	stop = start(t, c.Run)
	eventually(t, "client ready", func() bool { return c.Ready() == nil })
	return c, stop
}

func TestClientDeliversAllThreeTopics(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	before := time.Now().UnixNano()
	for _, p := range []*paho.Publish{
		{Topic: "devices/a:1/telemetry", QoS: 0, Payload: []byte("zero")},
		{Topic: "devices/a:1/telemetry", QoS: 1, Payload: []byte("one"), Properties: &paho.PublishProperties{ContentType: "application/json; charset=utf-8"}},
		{Topic: "devices/a:1/telemetry", QoS: 2, Payload: []byte("two"), Properties: &paho.PublishProperties{ContentType: "application/msgpack"}},
		{Topic: "devices/a:1/status", QoS: 1, Retain: true, Payload: []byte(`{"online":true}`)},
		{Topic: "devices/a:1/reported", QoS: 1, Payload: []byte(`{"x":1}`), Properties: &paho.PublishProperties{
			User: paho.UserProperties{{Key: "boot", Value: "3"}, {Key: "seq", Value: "118"}},
		}},
		{Topic: "devices/a:1/reported", QoS: 1, Payload: []byte(`{"x":2}`)},
		{Topic: "elsewhere/a:1/telemetry", QoS: 1, Payload: []byte("not ours")},
	} {
		if _, err := d.send(p); err != nil {
			t.Fatal(err)
		}
	}
	got := o.await(t, 6)
	type message struct {
		Kind                              host.MessageKind
		Device, Payload, ContentType, Top string
		Boot, Seq                         uint64
		Numbered                          bool
	}
	var have []message
	last := before
	for _, g := range got {
		have = append(have, message{g.Kind, string(g.Device), string(g.Payload), g.ContentType, g.Topic, g.Boot, g.Seq, g.Numbered})
		if g.ReceivedAt <= last {
			t.Errorf("received at %d, not after %d", g.ReceivedAt, last)
		}
		last = g.ReceivedAt
	}
	want := []message{
		{host.Telemetry, "a:1", "zero", "", "devices", 0, 0, false},
		{host.Telemetry, "a:1", "one", "application/json", "devices", 0, 0, false},
		{host.Telemetry, "a:1", "two", "application/msgpack", "devices", 0, 0, false},
		{host.Status, "a:1", `{"online":true}`, "", "devices", 0, 0, false},
		{host.Reported, "a:1", `{"x":1}`, "", "devices", 3, 118, true},
		{host.Reported, "a:1", `{"x":2}`, "", "devices", 0, 0, false},
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	eventually(t, "all acknowledged", func() bool { return c.Stats().Acked.Load() == 5 && c.Stats().Unacked.Load() == 0 })
	if got := c.Stats().Telemetry.Load(); got != 3 {
		t.Errorf("telemetry counted %d, want 3", got)
	}
}

// A message that is not released stays with the broker: the next connection gets it again, and the
// verdict for the first copy does nothing.
func TestClientAcknowledgesOnlyWhatIsReleased(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(holdAll)
	c, _ := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	for i := range 20 {
		if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	first := o.await(t, 20)
	never(t, "PUBACK before Done", 200*time.Millisecond, func() bool { return c.Stats().Acked.Load() > 0 })

	// Released out of order, all but the first: nothing may be acknowledged.
	for i := 19; i > 0; i-- {
		first[i].Reply.Done([]uint64{first[i].Token}, host.Released)
	}
	never(t, "PUBACK out of order", 200*time.Millisecond, func() bool { return c.Stats().Acked.Load() > 0 })

	_ = c.link.conn.Load().Conn.Close() // the link is cut
	again := o.await(t, 40)[20:]
	for i, g := range again {
		if string(g.Payload) != strconv.Itoa(i) {
			t.Fatalf("redelivered %d: %s", i, g.Payload)
		}
	}
	for _, f := range first {
		f.Reply.Done([]uint64{f.Token}, host.Released)
	}
	never(t, "PUBACK for a verdict of the old connection", 200*time.Millisecond, func() bool { return c.Stats().Acked.Load() > 0 })
	if got := c.Stats().Stale.Load(); got < 20 {
		t.Errorf("stale verdicts %d, want at least 20", got)
	}
	for _, g := range again {
		g.Reply.Done([]uint64{g.Token}, host.Released)
	}
	eventually(t, "all acknowledged", func() bool { return c.Stats().Acked.Load() == 20 })
	_ = c.link.conn.Load().Conn.Close()
	eventually(t, "third connection", func() bool { return c.Stats().Connects.Load() == 3 && c.Ready() == nil })
	never(t, "redelivery of acknowledged messages", 300*time.Millisecond, func() bool { return len(o.received()) > 40 })
}

func TestClientDeliversAgainUntilReleased(t *testing.T) {
	m := startMosquitto(t, recommended)
	verdicts := []host.Verdict{host.Busy, host.NotOwner, host.Failed, host.Released}
	tries := map[string]int{}
	stamps := map[string]int64{}
	o := newOwner(nil)
	o.verdict = func(m host.Message) (host.Verdict, bool) {
		k := string(m.Payload)
		if at, ok := stamps[k]; ok && at != m.ReceivedAt {
			t.Errorf("received-at changed from %d to %d", at, m.ReceivedAt)
		}
		stamps[k] = m.ReceivedAt
		tries[k]++
		return verdicts[min(tries[k], len(verdicts))-1], true
	}
	c, _ := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	for i := range 5 {
		if _, err := d.publish("devices/a/telemetry", byte(i%2), false, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	o.await(t, 5*len(verdicts))
	eventually(t, "all released, and the 2 of QoS 1 acknowledged", func() bool {
		return c.Stats().Unacked.Load() == 0 && c.Stats().Acked.Load() == 2
	})
	if got := c.Stats().Redelivered.Load(); got != 15 {
		t.Errorf("redelivered %d, want 15", got)
	}
}

// A stalled inlet stops the reading at the limit, and neither side takes the link for dead.
func TestClientStallsWithoutLosingTheConnection(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(holdAll)
	c, _ := startClient(t, m.addr, o, func(cfg *Config) {
		cfg.ReceiveMaximum, cfg.Limit, cfg.KeepAlive = 40, 10, 2*time.Second
	})
	d := newDevice(t, m.addr, nil)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			if _, err := d.publish("devices/a/telemetry", 1, false, strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	o.await(t, 10)
	never(t, "more than the limit held, or a reconnect, for over three keep alives", 7*time.Second, func() bool {
		return len(o.received()) > 10 || c.Stats().Connects.Load() > 1 || c.Ready() != nil
	})
	o.mu.Lock()
	o.verdict = releaseAll
	held := append([]host.Message(nil), o.msgs...)
	o.mu.Unlock()
	for _, g := range held {
		g.Reply.Done([]uint64{g.Token}, host.Released)
	}
	eventually(t, "the rest", func() bool { return c.Stats().Acked.Load() == 60 })

	gate := make(chan struct{}) // the same with an inlet that blocks
	o.block(gate)
	if _, err := d.publish("devices/a/telemetry", 1, false, "60"); err != nil {
		t.Fatal(err)
	}
	never(t, "a reconnect while Deliver blocks", 5*time.Second, func() bool { return c.Stats().Connects.Load() > 1 })
	close(gate)
	eventually(t, "the last", func() bool { return c.Stats().Acked.Load() == 61 })
}

func TestClientRefusesWhatNoTwinCanTake(t *testing.T) {
	m := startMosquitto(t, recommended)
	o := newOwner(releaseAll)
	failures := 1
	o.refused = func(host.DeadLetter) error {
		if failures--; failures >= 0 {
			return errors.New("not durable")
		}
		return nil
	}
	c, _ := startClient(t, m.addr, o, nil)
	d := newDevice(t, m.addr, nil)
	d.subscribe(t, "devices/+/rejected", 0)
	long := strings.Repeat("x", 129)
	big := strings.Repeat("b", maxPayload+1)
	huge := strings.Repeat("h", 3<<20)
	for _, p := range []*paho.Publish{
		{Topic: "devices/a b/telemetry", QoS: 1, Payload: []byte("1")},
		{Topic: "devices//status", QoS: 1, Payload: []byte("2")},
		{Topic: "devices/" + long + "/reported", QoS: 1, Payload: []byte("3")},
		{Topic: "devices/d/telemetry", QoS: 1, Payload: []byte(big)},
		{Topic: "devices/e/telemetry", QoS: 1, Payload: []byte(huge)},
		{Topic: "devices/f/reported", QoS: 1, Payload: []byte("{}"), Properties: &paho.PublishProperties{User: paho.UserProperties{{Key: "seq", Value: "-1"}}}},
		{Topic: "devices/g/telemetry", QoS: 1, Payload: []byte(big[:maxPayload])},
	} {
		if _, err := d.send(p); err != nil {
			t.Fatal(err)
		}
	}
	type letter struct {
		Device, Detail, Topic string
		Reason                twin.Reason
		Size                  int
	}
	var have []letter
	for _, l := range o.awaitDead(t, 7) { // 6, and the first again
		if l.ReceivedAt == 0 {
			t.Errorf("letter of %q has no time", l.Device)
		}
		have = append(have, letter{l.Device, l.Detail, l.SourceTopic, l.Reason, len(l.Payload)})
	}
	first := letter{"a b", "device id has byte 0x20 at 1, allowed are letters, digits and . _ : @ -", "devices/a b/telemetry", twin.BadDeviceID, 1}
	want := []letter{
		first,
		{"", "device id is empty", "devices//status", twin.BadDeviceID, 1},
		{long, "device id has 129 bytes, at most 128 are allowed", "devices/" + long + "/reported", twin.BadDeviceID, 1},
		{"d", "payload has 65537 bytes, at most 65536 are allowed", "devices/d/telemetry", twin.TooLarge, 65537},
		{"e", "payload has 3145728 bytes, at most 65536 are allowed; the first 983040 are kept", "devices/e/telemetry", twin.TooLarge, maxKept},
		{"f", `user property seq: "-1" is no integer from 0 to 2^63-1`, "devices/f/reported", twin.NumberRange, 2},
	}
	again := -1
	for i, l := range have[1:] {
		if l == first {
			again = i + 1
		}
	}
	if again < 0 {
		t.Fatalf("the letter that was not durable did not come again: %+v", have)
	}
	have = append(have[:again], have[again+1:]...)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	o.await(t, 1)
	eventually(t, "all acknowledged", func() bool { return c.Stats().Acked.Load() == 7 })
	eventually(t, "three devices told", func() bool { return len(d.received()) == 3 })
	told := d.received()[0]
	if want := `{"reason":"too_large","detail":"payload has 65537 bytes, at most 65536 are allowed"}`; told.Topic != "devices/d/rejected" || string(told.Payload) != want {
		t.Errorf("told %s %s, want %s", told.Topic, told.Payload, want)
	}
}

func TestClientIgnoresRetainedTelemetry(t *testing.T) {
	m := startMosquitto(t, recommended)
	d := newDevice(t, m.addr, nil)
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, nil)
	manager := c.manager.Load()
	if _, err := d.publish("devices/a/telemetry", 1, true, "retained"); err != nil {
		t.Fatal(err)
	}
	o.await(t, 1) // live, the broker clears RETAIN
	// A plain subscription makes the broker send it with RETAIN.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "devices/a/telemetry", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "retained telemetry ignored and acknowledged", func() bool {
		return c.Stats().Ignored.Load() == 1 && c.Stats().Acked.Load() == 2
	})
	if got := len(o.received()); got != 1 {
		t.Errorf("%d messages delivered, want 1", got)
	}
}

func TestClientSweepsRetainedStatus(t *testing.T) {
	m := startMosquitto(t, recommended)
	d := newDevice(t, m.addr, nil)
	const n = 300
	for i := range n {
		if _, err := d.publish(fmt.Sprintf("devices/d%03d/status", i), 1, true, `{"online":true}`); err != nil {
			t.Fatal(err)
		}
	}
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, nil)
	never(t, "retained status on the shared subscription", 300*time.Millisecond, func() bool { return len(o.received()) > 0 })
	o.mu.Lock()
	o.verdict = func(m host.Message) (host.Verdict, bool) { // the first time busy
		for _, before := range o.msgs[:len(o.msgs)-1] {
			if string(before.Device) == string(m.Device) {
				return host.Released, true
			}
		}
		return host.Busy, true
	}
	o.mu.Unlock()
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, g := range o.received() {
		if g.Kind != host.Status || string(g.Payload) != `{"online":true}` {
			t.Errorf("swept %v %s", g.Kind, g.Payload)
		}
		seen[string(g.Device)]++
	}
	if len(seen) != n {
		t.Errorf("swept %d devices, want %d", len(seen), n)
	}
	for device, times := range seen {
		if times != 2 {
			t.Errorf("%s delivered %d times, want 2", device, times)
		}
	}
	if got := c.Stats().Unacked.Load(); got != 0 {
		t.Errorf("unacknowledged after the sweep: %d", got)
	}
}
