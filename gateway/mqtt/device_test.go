package mqtt

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// device is an MQTT 5 client.
type device struct {
	*paho.Client
	conn net.Conn
	mu   sync.Mutex
	got  []*paho.Publish
}

func newDevice(t testing.TB, addr string, change func(*paho.Connect)) *device {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{conn: nc}
	d.Client = paho.NewClient(paho.ClientConfig{
		Conn: nc,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.got = append(d.got, p.Packet)
			return true, nil
		}},
	})
	c := &paho.Connect{ClientID: "", CleanStart: true, KeepAlive: 30}
	if change != nil {
		change(c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := d.Connect(ctx, c); err != nil {
		t.Fatalf("device connects: %v", err)
	}
	t.Cleanup(func() {
		_ = d.Disconnect(&paho.Disconnect{})
		<-d.Done()
	})
	return d
}

func (d *device) publish(topic string, qos byte, retain bool, payload string) (*paho.PublishResponse, error) {
	return d.send(&paho.Publish{Topic: topic, QoS: qos, Retain: retain, Payload: []byte(payload)})
}

func (d *device) send(p *paho.Publish) (*paho.PublishResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return d.Publish(ctx, p)
}

func (d *device) subscribe(t testing.TB, filter string, qos byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := d.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}}); err != nil {
		t.Fatalf("subscribe %s: %v", filter, err)
	}
	// A broker may look for retained messages after its SUBACK: what is published now would come twice.
	if _, err := d.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{"nothing"}}); err != nil {
		t.Fatalf("behind subscribe %s: %v", filter, err)
	}
}

func (d *device) received() []*paho.Publish {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*paho.Publish(nil), d.got...)
}
