package mqtt

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

func startBroker(t *testing.T, o *owner, change func(*BrokerConfig)) (b *Broker, addr string, stop func()) {
	t.Helper()
	cfg := BrokerConfig{Address: "127.0.0.1:0", DrainTimeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	b, err := NewBroker(cfg, o, o, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop = start(t, b.Run)
	eventually(t, "broker ready", func() bool { return b.Ready() == nil })
	return b, b.Addr().String(), stop
}

func newDevice3(t *testing.T, addr, id string, clean bool, change func(*mqtt3.ClientOptions)) mqtt3.Client {
	t.Helper()
	opts := mqtt3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetCleanSession(clean).
		SetProtocolVersion(4).SetOrderMatters(false).SetAutoReconnect(true).SetMaxReconnectInterval(50 * time.Millisecond).
		SetWriteTimeout(5 * time.Second)
	if change != nil {
		change(opts)
	}
	c := mqtt3.NewClient(opts)
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("3.1.1 device connects: %v", tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func payloads(msgs []host.Message) []string {
	var out []string
	for i := range msgs {
		out = append(out, string(msgs[i].Payload))
	}
	return out
}

func TestBrokerTakesEveryQoSOfBothVersions(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, nil)
	d5 := newDevice(t, addr, nil)
	d3 := newDevice3(t, addr, "three", true, nil)
	var want []string
	for qos := range byte(3) {
		p5, p3 := fmt.Sprintf("v5 %d", qos), fmt.Sprintf("v3 %d", qos)
		want = append(want, p5, p3)
		ack, err := d5.publish("devices/five/telemetry", qos, false, p5)
		if err != nil {
			t.Fatal(err)
		}
		if qos > 0 && ack.ReasonCode != 0 {
			t.Errorf("qos %d acknowledged with 0x%02X", qos, ack.ReasonCode)
		}
		o.await(t, len(want)-1)
		if tok := d3.Publish("devices/three/telemetry", qos, false, p3); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
			t.Fatalf("v3 qos %d: %v", qos, tok.Error())
		}
		o.await(t, len(want))
	}
	out, err := exec.Command(findMosquitto(t, "mosquitto_pub"), "-h", "127.0.0.1", "-p", addr[strings.LastIndexByte(addr, ':')+1:],
		"-t", "devices/tool/reported", "-m", "{}", "-q", "1", "-V", "5",
		"-D", "publish", "content-type", "application/json", "-D", "publish", "user-property", "seq", "7").CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	got := o.await(t, 7)
	if diff := cmp.Diff(append(want, "{}"), payloads(got)); diff != "" {
		t.Errorf("payloads (-want +got):\n%s", diff)
	}
	last := got[6]
	if last.Kind != host.Reported || last.ContentType != "application/json" || !last.Numbered || last.Seq != 7 || last.Boot != 0 {
		t.Errorf("reported arrived as %+v", last)
	}
	eventually(t, "nothing held", func() bool { return b.Stats().Unacked.Load() == 0 && b.Stats().Acked.Load() == 5 })
}

// Each device gets its acknowledgements in the order it sent, and none before its message is released.
func TestBrokerAcknowledgesInOrderWhatIsReleased(t *testing.T) {
	o := newOwner(holdAll)
	b, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	const n = 20
	var mu sync.Mutex
	acked := 0
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := d.publish("devices/a/telemetry", byte(1+i%2), false, strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			acked++
		})
	}
	got := o.await(t, n)
	for _, m := range got[1:] {
		m.Reply.Done([]uint64{m.Token}, host.Released)
	}
	never(t, "acknowledged before the first", 200*time.Millisecond, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return acked > 0 || b.Stats().Acked.Load() > 0
	})
	got[0].Reply.Done([]uint64{got[0].Token, got[0].Token}, host.Released)
	wg.Wait()
}

func TestBrokerTellsADeviceThatItFailed(t *testing.T) {
	o := newOwner(nil)
	failures := 2
	o.verdict = func(host.Message) (host.Verdict, bool) {
		if failures--; failures >= 0 {
			return host.Failed, true
		}
		return host.Released, true
	}
	b, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	ack, err := d.publish("devices/a/telemetry", 1, false, "v5")
	if err == nil || ack == nil || ack.ReasonCode != quotaExceeded {
		t.Errorf("acknowledged with %+v, %v, want 0x97", ack, err)
	}
	// MQTT 3.1.1 knows no negative answer: the connection goes, the client comes back and sends again.
	d3 := newDevice3(t, addr, "three", false, nil)
	if tok := d3.Publish("devices/a/telemetry", 1, false, "v3"); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("v3: %v", tok.Error())
	}
	if diff := cmp.Diff([]string{"v5", "v3", "v3"}, payloads(o.await(t, 3))); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if got := b.Stats().Negative.Load(); got != 2 {
		t.Errorf("negative %d, want 2", got)
	}
}

func TestBrokerDeliversAgainUntilReleased(t *testing.T) {
	o := newOwner(nil)
	tries := 0
	o.verdict = func(host.Message) (host.Verdict, bool) {
		tries++
		return []host.Verdict{host.Busy, host.NotOwner, host.Busy, host.Released}[min(tries, 4)-1], true
	}
	b, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	if _, err := d.publish("devices/a/telemetry", 2, false, "x"); err != nil {
		t.Fatal(err)
	}
	if got := len(o.received()); got != 4 || b.Stats().Redelivered.Load() != 3 {
		t.Errorf("delivered %d times, redelivered %d, want 4 and 3", got, b.Stats().Redelivered.Load())
	}
}

// A device with a full window is not read any more; others are.
func TestBrokerHoldsBackOneDevice(t *testing.T) {
	o := newOwner(func(m host.Message) (host.Verdict, bool) { return host.Released, string(m.Device) != "slow" })
	b, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.MaxUnacked = 8 })
	slow, quick := newDevice(t, addr, nil), newDevice(t, addr, nil)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if _, err := slow.publish("devices/slow/telemetry", byte(i%2), false, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	o.await(t, 8)
	for range 50 {
		if _, err := quick.publish("devices/quick/telemetry", 1, false, "x"); err != nil {
			t.Fatal(err)
		}
	}
	never(t, "more than the window", 200*time.Millisecond, func() bool { return b.Stats().Unacked.Load() > 8 })
	o.mu.Lock()
	o.verdict = releaseAll
	held := append([]host.Message(nil), o.msgs...)
	o.mu.Unlock()
	for _, m := range held {
		if string(m.Device) == "slow" {
			m.Reply.Done([]uint64{m.Token}, host.Released)
		}
	}
	wg.Wait()
	o.await(t, 150)
}

func TestBrokerResolvesTopicAliases(t *testing.T) {
	o := newOwner(releaseAll)
	_, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	alias := uint16(3)
	for i, topic := range []string{"devices/a/telemetry", "", "", "devices/b/status", ""} {
		p := &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(strconv.Itoa(i)), Properties: &paho.PublishProperties{TopicAlias: &alias}}
		if _, err := d.send(p); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range o.await(t, 5) {
		got = append(got, fmt.Sprintf("%s %d %s", m.Device, m.Kind, m.Payload))
	}
	want := []string{"a 1 0", "a 1 1", "a 1 2", "b 2 3", "b 2 4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestBrokerRefusesWhatNoTwinCanTake(t *testing.T) {
	o := newOwner(releaseAll)
	fails := 1
	o.refused = func(host.DeadLetter) error {
		if fails--; fails >= 0 {
			return errors.New("not durable")
		}
		return nil
	}
	_, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	d.subscribe(t, "devices/+/rejected", 0)
	big := strings.Repeat("b", 1000<<10)
	if ack, err := d.publish("devices/ä/telemetry", 1, false, "1"); err == nil || ack.ReasonCode != quotaExceeded {
		t.Errorf("a dead letter that is not durable was acknowledged with %+v", ack)
	}
	for _, p := range []*paho.Publish{
		{Topic: "devices/ä/telemetry", QoS: 1, Payload: []byte("1")},
		{Topic: "devices/big/telemetry", QoS: 2, Payload: []byte(big)},
		{Topic: "devices/r/reported", QoS: 1, Payload: []byte("{}"), Properties: &paho.PublishProperties{User: paho.UserProperties{{Key: "seq", Value: "0"}}}},
		{Topic: "devices/big/telemetry", QoS: 1, Payload: []byte(big)[:maxPayload]},
	} {
		if ack, err := d.send(p); err != nil || ack.ReasonCode != 0 {
			t.Fatalf("%s: %+v %v", p.Topic, ack, err)
		}
	}
	type letter struct {
		Device, Detail string
		Reason         twin.Reason
		Size           int
	}
	var got []letter
	for _, l := range o.dead() {
		got = append(got, letter{l.Device, l.Detail, l.Reason, len(l.Payload)})
	}
	bad := letter{"ä", "device id has byte 0xC3 at 0, allowed are letters, digits and . _ : @ -", twin.BadDeviceID, 1}
	want := []letter{
		bad, bad,
		{"big", "payload has 1024000 bytes, at most 65536 are allowed; the first 983040 are kept", twin.TooLarge, maxKept},
		{"r", "user property seq: 0, numbers start at 1", twin.NumberRange, 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if got := len(o.received()); got != 1 {
		t.Errorf("inlet has %d messages, want 1", got)
	}
	eventually(t, "devices told", func() bool { return len(d.received()) == 2 })
	if got := d.received()[0].Topic; got != "devices/big/rejected" {
		t.Errorf("told on %s", got)
	}
}

// A stalled inlet cannot keep the broker from ending: what is not released is not acknowledged.
func TestBrokerEndsWhileTheInletStalls(t *testing.T) {
	o := newOwner(releaseAll)
	o.block(make(chan struct{}))
	b, addr, stop := startBroker(t, o, func(c *BrokerConfig) { c.MaxUnacked, c.DrainTimeout = 1, 50*time.Millisecond })
	raw, _ := newRawDevice(t, addr, "raw", true)
	for id := range uint16(5) {
		raw.publish2(id+1, false, "x")
	}
	cut := newDevice(t, addr, func(c *paho.Connect) {
		c.WillMessage = &paho.WillMessage{Topic: "devices/b/status", Payload: []byte("offline")}
	})
	cut.conn.Close()
	eventually(t, "a message and a will held", func() bool { return b.Stats().Unacked.Load() == 2 })
	stop()
	if got := b.Stats().Acked.Load(); got != 0 {
		t.Errorf("acknowledged %d, want none", got)
	}
}

// Run ends with everything received answered; what comes meanwhile is not taken, and no device goes
// offline because the broker does.
func TestBrokerDrains(t *testing.T) {
	o := newOwner(holdAll)
	b, addr, stop := startBroker(t, o, nil)
	will := func(c *paho.Connect) {
		c.WillMessage = &paho.WillMessage{Topic: "devices/a/status", Payload: []byte("offline")}
	}
	d, late := newDevice(t, addr, will), newDevice(t, addr, nil)
	acked := make(chan error, 1)
	go func() {
		_, err := d.publish("devices/a/telemetry", 1, false, "held")
		acked <- err
	}()
	held := o.await(t, 1)[0]
	ended := make(chan struct{})
	go func() { defer close(ended); stop() }()
	eventually(t, "closing", func() bool { return b.closing.Load() })
	if _, err := late.publish("devices/b/telemetry", 0, false, "late"); err != nil {
		t.Fatal(err)
	}
	never(t, "end before the verdict", 100*time.Millisecond, func() bool {
		select {
		case <-ended:
			return true
		default:
			return len(o.received()) > 1
		}
	})
	held.Reply.Done([]uint64{held.Token}, host.Released)
	if err := <-acked; err != nil {
		t.Errorf("held message: %v", err)
	}
	<-ended
	if got := payloads(o.received()); len(got) != 1 {
		t.Errorf("delivered %q, want only the first", got)
	}
}
