package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// rawDevice speaks MQTT 5 packet by packet.
type rawDevice struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func newRawDevice(t *testing.T, addr, id string, clean bool) (d *rawDevice, sessionPresent bool) {
	t.Helper()
	return newRawDeviceWith(t, &net.Dialer{}, addr, id, clean)
}

func newRawDeviceWith(t *testing.T, dialer *net.Dialer, addr, id string, clean bool) (d *rawDevice, sessionPresent bool) {
	t.Helper()
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	d = &rawDevice{t, c, bufio.NewReader(c)}
	expiry := uint32(60)
	d.send(&packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: id, CleanStart: clean, KeepAlive: 30,
		Properties: &packets.Properties{SessionExpiryInterval: &expiry},
	})
	return d, d.next().Content.(*packets.Connack).SessionPresent
}

func (d *rawDevice) send(p packets.Packet) {
	d.t.Helper()
	if _, err := p.WriteTo(d.Conn); err != nil {
		d.t.Fatal(err)
	}
}

func (d *rawDevice) next() *packets.ControlPacket {
	d.t.Helper()
	p, err := packets.ReadPacket(d.r)
	if err != nil {
		d.t.Fatalf("read: %v", err)
	}
	return p
}

func (d *rawDevice) publish2(id uint16, dup bool, payload string) {
	d.t.Helper()
	d.send(&packets.Publish{Topic: "devices/a/telemetry", QoS: 2, PacketID: id, Duplicate: dup, Payload: []byte(payload), Properties: &packets.Properties{}})
}

func (d *rawDevice) wantPubrec(id uint16) {
	d.t.Helper()
	p := d.next()
	got, ok := p.Content.(*packets.Pubrec)
	if !ok || got.PacketID != id || got.ReasonCode != 0 {
		d.t.Fatalf("got %s %+v, want PUBREC %d 0x00", p.PacketType(), p.Content, id)
	}
}

func (d *rawDevice) release(id uint16, wantCode byte) {
	d.t.Helper()
	d.send(&packets.Pubrel{PacketID: id, Properties: &packets.Properties{}})
	p := d.next()
	got, ok := p.Content.(*packets.Pubcomp)
	if !ok || got.PacketID != id || got.ReasonCode != wantCode {
		d.t.Fatalf("got %s %+v, want PUBCOMP %d 0x%02X", p.PacketType(), p.Content, id, wantCode)
	}
}

// A QoS 2 message is delivered once, however often the device sends it until PUBREL, also over a new
// connection of its session.
func TestBrokerDeliversQoS2Once(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, nil)
	d, _ := newRawDevice(t, addr, "raw", true)
	d.publish2(7, false, "once")
	d.wantPubrec(7)
	d.publish2(7, true, "once")
	d.wantPubrec(7)
	d.release(7, 0)
	d.release(7, 0x92) // packet identifier not found: the exchange is over
	d.publish2(7, false, "the identifier is free again")
	d.wantPubrec(7)

	d.Close()
	d, present := newRawDevice(t, addr, "raw", false)
	if !present {
		t.Fatal("the session is gone")
	}
	d.wantPubrec(7) // mochi sends it again on its own
	d.publish2(7, true, "the identifier is free again")
	d.wantPubrec(7)
	d.release(7, 0)
	want := []string{"once", "the identifier is free again"}
	if diff := cmp.Diff(want, payloads(o.received())); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	eventually(t, "nothing held", func() bool { return b.Stats().Unacked.Load() == 0 })
}

// A verdict that comes after the connection has gone is remembered for the session.
func TestBrokerRemembersQoS2OverADisconnect(t *testing.T) {
	o := newOwner(holdAll)
	b, addr, _ := startBroker(t, o, nil)
	d, _ := newRawDevice(t, addr, "raw", true)
	d.publish2(1, false, "x")
	held := o.await(t, 1)[0]
	d.publish2(1, true, "x") // impatient
	d.Close()
	eventually(t, "device gone", func() bool { return b.Stats().Connected.Load() == 0 })
	held.Reply.Done([]uint64{held.Token}, host.Released)
	d, _ = newRawDevice(t, addr, "raw", false)
	d.wantPubrec(1)
	d.publish2(1, true, "x")
	d.wantPubrec(1)
	d.release(1, 0)
	if got := len(o.received()); got != 1 {
		t.Errorf("delivered %d times, want once", got)
	}
}

// While the inlet is stalled a device that times out and comes back leaves nothing behind.
func TestBrokerLetsGoOfConnectionsTakenOver(t *testing.T) {
	gate := make(chan struct{})
	o := newOwner(releaseAll)
	o.block(gate)
	b, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.MaxUnacked = 2 })
	for range 5 {
		d, _ := newRawDevice(t, addr, "impatient", true)
		for id := range uint16(4) {
			d.send(&packets.Publish{Topic: "devices/a/telemetry", QoS: 1, PacketID: id + 1, Properties: &packets.Properties{}})
		}
		eventually(t, "a message at the inlet", func() bool { return b.Stats().Unacked.Load() > 0 })
	}
	eventually(t, "old connections gone", func() bool { return b.Stats().Connected.Load() == 1 })
	if got := b.Stats().Unacked.Load(); got > 2 {
		t.Errorf("%d held, want the last connection's at most", got)
	}
	close(gate)
	eventually(t, "the last one is served", func() bool { return b.Stats().Acked.Load() == 4 })
}

// A device that never reads its acknowledgements blocks nobody and is thrown out.
func TestBrokerThrowsOutADeviceThatDoesNotRead(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.WriteTimeout = 200 * time.Millisecond })
	small := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
	}}
	d, _ := newRawDeviceWith(t, small, addr, "deaf", true)
	cl, _ := b.server.Clients.Get("deaf")
	if err := cl.Net.Conn.(*net.TCPConn).SetWriteBuffer(2048); err != nil {
		t.Fatal(err)
	}
	quick := newDevice(t, addr, nil)
	eventually(t, "both connected", func() bool { return b.Stats().Connected.Load() == 2 })
	go func() { // writes until it is thrown out
		w := bufio.NewWriterSize(d.Conn, 64<<10)
		p := &packets.Publish{Topic: "devices/deaf/telemetry", QoS: 1, PacketID: 1, Properties: &packets.Properties{}}
		for {
			if _, err := p.WriteTo(w); err != nil {
				return
			}
		}
	}()
	deadline := time.Now().Add(20 * time.Second)
	for b.Stats().Connected.Load() == 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := quick.Publish(ctx, &paho.Publish{Topic: "devices/quick/telemetry", QoS: 1})
		cancel()
		if err != nil {
			t.Fatalf("another device waits: %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the deaf device is still connected")
		}
	}
}

func TestBrokerOverTLS(t *testing.T) {
	pool, certFile, keyFile := certificate(t)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	o := newOwner(releaseAll)
	_, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	d := newDevice3(t, addr, "secure", true, func(o *mqtt3.ClientOptions) {
		o.Servers = nil
		o.AddBroker("ssl://" + addr).SetTLSConfig(&tls.Config{RootCAs: pool})
	})
	for range 10 {
		if tok := d.Publish("devices/a/telemetry", 1, false, "x"); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	o.await(t, 10)
}

// What a device sends may bear the identifier of a command it has not yet acknowledged.
func TestBrokerKeepsIdentifiersApart(t *testing.T) {
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, nil)
	d, _ := newRawDevice(t, addr, "raw", true)
	subscribe := func(id uint16) {
		t.Helper()
		d.send(&packets.Subscribe{PacketID: id, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: "devices/a/commands/+", QoS: 1}}})
		if got, ok := d.next().Content.(*packets.Suback); !ok || got.PacketID != id || got.Reasons[0] != 1 {
			t.Fatalf("got %+v, want SUBACK %d", got, id)
		}
	}
	subscribe(9)
	if err := b.Publish(t.Context(), "devices/a/commands/go", 1, false, []byte("{}"), nil); err != nil {
		t.Fatal(err)
	}
	command := d.next().Content.(*packets.Publish)
	id := command.PacketID
	subscribe(id)
	for _, topic := range []string{"devices/a/telemetry", "elsewhere"} {
		d.send(&packets.Publish{Topic: topic, QoS: 1, PacketID: id, Properties: &packets.Properties{}})
		if got, ok := d.next().Content.(*packets.Puback); !ok || got.PacketID != id || got.ReasonCode != 0 {
			t.Fatalf("%s: got %+v, want PUBACK %d", topic, got, id)
		}
	}
	d.send(&packets.Unsubscribe{PacketID: id, Topics: []string{"devices/a/commands/+"}, Properties: &packets.Properties{}})
	if got, ok := d.next().Content.(*packets.Unsuback); !ok || got.PacketID != id || got.Reasons[0] != 0 {
		t.Fatalf("got %+v, want UNSUBACK %d", got, id)
	}
	d.Close() // the command is still owed
	d, _ = newRawDevice(t, addr, "raw", false)
	if got, ok := d.next().Content.(*packets.Publish); !ok || got.PacketID != id || !got.Duplicate {
		t.Fatalf("got %+v, want the command again", got)
	}
}
