package mqtt

import (
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

func TestBrokerDeliversAndRetainsLastWills(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, nil)
	watcher := newDevice(t, addr, nil)
	watcher.subscribe(t, "devices/+/status", 1)
	offline := func(name string, delay uint32) func(*paho.Connect) {
		return func(c *paho.Connect) {
			c.ClientID = name
			c.WillMessage = &paho.WillMessage{Topic: "devices/" + name + "/status", QoS: 1, Retain: true, Payload: []byte("offline " + name)}
			c.WillProperties = &paho.WillProperties{WillDelayInterval: &delay}
		}
	}
	now, later := newDevice(t, addr, offline("now", 0)), newDevice(t, addr, func(c *paho.Connect) {
		offline("later", 1)(c)
		expiry := uint32(60)
		c.Properties = &paho.ConnectProperties{SessionExpiryInterval: &expiry}
	})
	unkept := newDevice(t, addr, offline("unkept", 100)) // its session ends with the connection, the will must not wait
	for _, d := range []*device{now, later, unkept} {
		d.conn.Close()
	}
	newDevice3(t, addr, "three", true, func(o *mqtt3.ClientOptions) {
		o.SetWill("devices/three/status", "offline three", 1, true).SetAutoReconnect(false)
		o.SetConnectionLostHandler(func(mqtt3.Client, error) {})
	})
	for _, cl := range b.server.Clients.GetAll() {
		if cl.ID == "three" {
			_ = cl.Net.Conn.Close()
		}
	}
	got := map[string]bool{}
	for _, m := range o.await(t, 4) {
		if m.Kind != host.Status || m.Token == 0 && m.Reply == nil {
			t.Errorf("will arrived as %+v", m)
		}
		got[string(m.Device)+": "+string(m.Payload)] = true
	}
	want := map[string]bool{"now: offline now": true, "later: offline later": true, "unkept: offline unkept": true, "three: offline three": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wills (-want +got):\n%s", diff)
	}
	eventually(t, "subscriber has all wills", func() bool { return len(watcher.received()) == 4 })
	eventually(t, "all wills retained", func() bool { return len(b.server.Topics.Messages("devices/+/status")) == 4 })
	eventually(t, "no will held", func() bool { return b.Stats().Unacked.Load() == 0 })
}

func TestBrokerPassesMessagesOn(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, nil)
	d := newDevice(t, addr, nil)
	for _, topic := range []string{"devices/a/telemetry", "devices/a/reported"} {
		if _, err := d.publish(topic, 1, false, "unwatched"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.publish("devices/a/status", 1, true, "online"); err != nil {
		t.Fatal(err)
	}
	if got := b.Stats().Forwarded.Load(); got != 1 {
		t.Errorf("forwarded %d without a subscriber, want the status alone", got)
	}
	watcher := newDevice(t, addr, nil)
	watcher.subscribe(t, "devices/#", 1)
	eventually(t, "retained status", func() bool { return len(watcher.received()) == 1 })
	if got := watcher.received()[0]; string(got.Payload) != "online" || !got.Retain {
		t.Errorf("retained status is %s, retain %v", got.Payload, got.Retain)
	}
	if _, err := d.publish("devices/a/telemetry", 1, false, "watched"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.publish("elsewhere/x", 2, false, "ordinary"); err != nil {
		t.Fatal(err)
	}
	watcher.subscribe(t, "elsewhere/#", 2)
	if _, err := d.publish("elsewhere/x", 2, false, "ordinary"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest", func() bool { return len(watcher.received()) == 3 })
	if got := watcher.received()[1]; string(got.Payload) != "watched" || got.QoS != 1 {
		t.Errorf("telemetry passed on as %s, qos %d", got.Payload, got.QoS)
	}
	if got := len(o.received()); got != 4 {
		t.Errorf("inlet has %d messages, want 4", got)
	}
	_ = watcher.Disconnect(&paho.Disconnect{})
	eventually(t, "watcher gone", func() bool { return b.Stats().Connected.Load() == 1 })
	eventually(t, "telemetry passed on no more with no subscriber left", func() bool { // mochi forgets it a moment later
		b.recount()
		return !b.watched.Load()
	})
}

// Subscribers with a Receive Maximum stop mochi's delivery after twice as many, or dead-lock it.
func TestBrokerDeliversToASubscriberWithReceiveMaximum(t *testing.T) {
	b, addr, _ := startBroker(t, newOwner(releaseAll), nil)
	few := uint16(3)
	d := newDevice(t, addr, func(c *paho.Connect) { c.Properties = &paho.ConnectProperties{ReceiveMaximum: &few} })
	d.subscribe(t, "devices/a/commands/+", 1)
	props := &Properties{
		ContentType: "application/json", ResponseTopic: "r", CorrelationData: []byte{1, 2},
		Expiry: 1500 * time.Millisecond, User: []UserProperty{{"k", "v"}},
	}
	const n = 200
	for i := range n {
		if err := b.Publish(t.Context(), "devices/a/commands/go", 1, false, []byte(strconv.Itoa(i)), props); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all commands", func() bool { return len(d.received()) == n })
	checkCommand(t, d.received()[n-1])
}
