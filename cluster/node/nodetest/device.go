package nodetest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// Device is an MQTT 5 client that speaks for one device.
type Device struct {
	ID     string
	Client *paho.Client

	t    testing.TB
	root string
	mu   sync.Mutex
	got  []*paho.Publish
}

// Device connects a device to the node's broker and subscribes what the node tells it.
func (n *Node) Device(id string) *Device {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(n.Broker(), "mqtt://"))
	if err != nil {
		n.t.Fatal(err)
	}
	d := &Device{ID: id, t: n.t, root: n.Config.MQTTRoot}
	d.Client = paho.NewClient(paho.ClientConfig{
		Conn: conn,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.got = append(d.got, p.Packet)
			return true, nil
		}},
	})
	if _, err := d.Client.Connect(ctx, &paho.Connect{ClientID: Unique("device"), CleanStart: true, KeepAlive: 30}); err != nil {
		n.t.Fatalf("connect device: %v", err)
	}
	n.t.Cleanup(func() {
		_ = d.Client.Disconnect(&paho.Disconnect{})
		select {
		case <-d.Client.Done():
		case <-time.After(Patience):
			n.t.Error("device does not disconnect")
		}
	})
	for _, level := range []string{"rejected", "desired"} {
		sub := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: d.Topic(level), QoS: 1}}}
		if _, err := d.Client.Subscribe(ctx, sub); err != nil {
			n.t.Fatalf("subscribe %s: %v", level, err)
		}
	}
	return d
}

// Topic is a topic of the device.
func (d *Device) Topic(level string) string { return d.root + "/" + d.ID + "/" + level }

// Send publishes p with QoS 1 and fails the test unless it is acknowledged with reason 0.
func (d *Device) Send(p *paho.Publish) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	p.QoS = 1
	r, err := d.Client.Publish(ctx, p)
	if err != nil {
		d.t.Fatalf("publish %s: %v", p.Topic, err)
	}
	if r.ReasonCode != 0 {
		d.t.Errorf("publish %s: PUBACK reason 0x%02x, want 0x00", p.Topic, r.ReasonCode)
	}
}

// Telemetry sends JSON telemetry.
func (d *Device) Telemetry(json string) {
	d.t.Helper()
	d.Send(&paho.Publish{Topic: d.Topic("telemetry"), Payload: []byte(json)})
}

// Received are the messages the device got on a topic.
func (d *Device) Received(topic string) []*paho.Publish {
	d.mu.Lock()
	defer d.mu.Unlock()
	var got []*paho.Publish
	for _, p := range d.got {
		if p.Topic == topic {
			got = append(got, p)
		}
	}
	return got
}
