package mqtt

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/crypto/bcrypt"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/certs/certstest"
)

func hashOf(t *testing.T, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// users are pump-1, a gateway of fans and a service, each with its name as password.
func users(t *testing.T) (*auth.DeviceUsers, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users.yaml")
	text := "users:\n- {name: pump-1, password: " + hashOf(t, "pump-1") + "}\n- {name: pump-2, password: " + hashOf(t, "pump-2") + "}\n" +
		"- {name: gw, password: " + hashOf(t, "gw") + ", devices: ['fan-*']}\n- {name: backend, password: " + hashOf(t, "backend") + ", service: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := auth.OpenDeviceUsers(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return u, file
}

// knock connects, and returns the reason code of the answer. change completes the CONNECT.
func knock(t *testing.T, nc net.Conn, change func(*paho.Connect)) (*paho.Client, byte) {
	t.Helper()
	c := paho.NewClient(paho.ClientConfig{Conn: nc})
	p := &paho.Connect{CleanStart: true, KeepAlive: 30}
	if change != nil {
		change(p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ack, err := c.Connect(ctx, p)
	switch {
	case ack == nil:
		t.Fatalf("no answer: %v", err)
	case err == nil:
		t.Cleanup(func() {
			_ = c.Disconnect(&paho.Disconnect{})
			<-c.Done()
		})
	default:
		_ = nc.Close()
	}
	return c, ack.ReasonCode
}

func dialPlain(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func asUser(name, password string) func(*paho.Connect) {
	return func(p *paho.Connect) {
		p.UsernameFlag, p.PasswordFlag, p.Username, p.Password, p.ClientID = true, true, name, []byte(password), name
	}
}

func TestBrokerLetsInWhomItKnows(t *testing.T) {
	u, _ := users(t)
	b, addr, _ := startBroker(t, newOwner(releaseAll), func(c *BrokerConfig) { c.Users = u })
	will := func(topic string) func(*paho.Connect) {
		return func(p *paho.Connect) {
			asUser("pump-1", "pump-1")(p)
			p.WillMessage = &paho.WillMessage{Topic: topic, QoS: 1, Payload: []byte("{}")}
		}
	}
	for _, tc := range []struct {
		name    string
		connect func(*paho.Connect)
		want    byte
	}{
		{"its password", asUser("pump-1", "pump-1"), 0},
		{"another's password", asUser("pump-1", "pump-2"), 0x86},
		{"a stranger", asUser("pump-9", "pump-1"), 0x86},
		{"nobody", nil, 0x86},
		{"its own last will", will("devices/pump-1/status"), 0},
		{"another's last will", will("devices/pump-2/status"), 0x86},
		{"a last will elsewhere", will("doppel/x"), 0x86},
	} {
		if _, got := knock(t, dialPlain(t, addr), tc.connect); got != tc.want {
			t.Errorf("%s: got 0x%02X, want 0x%02X", tc.name, got, tc.want)
		}
	}
	if got := b.Stats().Strangers.Load(); got != 5 {
		t.Errorf("%d strangers counted, want 5", got)
	}
	out := mqtt3.NewClient(mqtt3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("x").SetProtocolVersion(4).SetUsername("pump-1").SetPassword("no"))
	if tok := out.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() == nil {
		t.Error("a device of MQTT 3.1.1 with a wrong password was let in")
	}
}

// TestDeviceKeepsToItsOwnTopics: what is not its own is refused as MQTT 5 has it, and reaches nobody.
func TestDeviceKeepsToItsOwnTopics(t *testing.T) {
	u, _ := users(t)
	o := newOwner(releaseAll)
	b, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.Users = u })
	pump, _ := knock(t, dialPlain(t, addr), asUser("pump-1", "pump-1"))
	gw, _ := knock(t, dialPlain(t, addr), asUser("gw", "gw"))
	spy := newDevice(t, addr, asUser("backend", "backend"))
	spy.subscribe(t, "#", 1)
	publish := func(c *paho.Client, topic string, qos byte, alias uint16) byte {
		t.Helper()
		p := &paho.Publish{Topic: topic, QoS: qos, Payload: []byte(`{"metrics":{"a":1}}`), Properties: &paho.PublishProperties{}}
		if alias > 0 {
			p.Properties.TopicAlias = &alias
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := c.Publish(ctx, p)
		if r == nil {
			if err != nil {
				t.Errorf("publish %s: %v", topic, err)
			}
			return 0
		}
		return r.ReasonCode
	}
	allowed := 0
	for _, tc := range []struct {
		c     *paho.Client
		topic string
		want  byte
	}{
		{pump, "devices/pump-1/telemetry", 0},
		{pump, "devices/pump-1/reported", 0},
		{pump, "devices/pump-1/status", 0},
		{pump, "devices/pump-1/commands/open/reply", 0},
		{gw, "devices/fan-7/telemetry", 0},
		{pump, "devices/pump-2/telemetry", 0x87},
		{pump, "devices/pump-1/desired", 0x87},
		{pump, "devices/pump-1/commands/open", 0x87},
		{pump, "devices/pump-1/commands/a/b/reply", 0x87},
		{pump, "devices/pump-1/commands//reply", 0x87},
		{pump, "devices/pump-1", 0x87},
		{pump, "other/pump-1/telemetry", 0x87},
		{pump, "devices/pump-2/commands/open/reply", 0x87},
		{gw, "devices/pump-1/telemetry", 0x87},
		{gw, "devices/gw/telemetry", 0x87},
	} {
		for _, qos := range []byte{1, 2} {
			if got := publish(tc.c, tc.topic, qos, 0); got != tc.want {
				t.Errorf("%s at QoS %d: got 0x%02X, want 0x%02X", tc.topic, qos, got, tc.want)
			}
			if tc.want == 0 {
				allowed++
			}
		}
	}
	if got := publish(pump, "devices/pump-2/telemetry", 1, 3); got != 0x87 {
		t.Errorf("by a new alias: got 0x%02X", got)
	}
	if got := publish(pump, "", 1, 3); got != 0x87 {
		t.Errorf("by the alias: got 0x%02X", got)
	}
	publish(pump, "devices/pump-2/telemetry", 0, 0)
	publish(pump, "devices/pump-1/telemetry", 1, 0) // behind it
	o.await(t, 9)
	eventually(t, "the service hears it", func() bool { return len(spy.received()) >= allowed+1 })
	for _, p := range spy.received() {
		if !strings.HasPrefix(p.Topic, "devices/pump-1/") && !strings.HasPrefix(p.Topic, "devices/fan-7/") {
			t.Errorf("%s reached a subscriber", p.Topic)
		}
	}
	for _, m := range o.received() {
		if d := string(m.Device); d != "pump-1" && d != "fan-7" {
			t.Errorf("the inlet got a message of %s", d)
		}
	}
	if got := b.Stats().Denied.Load(); got != 23 {
		t.Errorf("%d refusals counted, want 23", got)
	}
	if _, err := publishProbe(spy, "devices/pump-2/desired"); err != nil {
		t.Errorf("a service publishes: %v", err)
	}
}

func publishProbe(d *device, topic string) (*paho.PublishResponse, error) {
	return d.publish(topic, 1, true, "{}")
}

// TestDeviceOfMQTT3KeepsToItsOwnTopics: there is no refusal in MQTT 3.1.1 but to end the connection.
func TestDeviceOfMQTT3KeepsToItsOwnTopics(t *testing.T) {
	u, _ := users(t)
	o := newOwner(releaseAll)
	_, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.Users = u })
	lost := make(chan struct{}, 1)
	d := newDevice3(t, addr, "three", true, func(o *mqtt3.ClientOptions) {
		o.SetUsername("pump-1").SetPassword("pump-1").SetAutoReconnect(false).SetConnectionLostHandler(func(mqtt3.Client, error) { lost <- struct{}{} })
	})
	d.Publish("devices/pump-2/telemetry", 1, false, "{}")
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection stays")
	}
	if n := len(o.received()); n != 0 {
		t.Errorf("%d messages came in", n)
	}
}

func TestDeviceSubscribesToItsOwn(t *testing.T) {
	u, _ := users(t)
	_, addr, _ := startBroker(t, newOwner(releaseAll), func(c *BrokerConfig) { c.Users = u })
	pump, _ := knock(t, dialPlain(t, addr), asUser("pump-1", "pump-1"))
	for filter, want := range map[string]byte{
		"devices/pump-1/desired": 1, "devices/pump-1/commands/#": 1, "devices/pump-1/rejected": 1, "devices/pump-1/#": 1,
		"devices/pump-2/desired": 0x87, "devices/+/desired": 0x87, "devices/#": 0x87, "#": 0x87, "+/pump-1/desired": 0x87,
		"$share/g/devices/pump-1/desired": 0x87, "$SYS/#": 0x87, "devices/pump-1": 0x87,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		ack, err := pump.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
		cancel()
		if ack == nil {
			t.Fatalf("%s: %v", filter, err)
		}
		if got := ack.Reasons[0]; got != want {
			t.Errorf("%s: got 0x%02X, want 0x%02X", filter, got, want)
		}
	}
}

// TestSessionsAreNotStolen: a client id in use by another does not lead to its messages.
func TestSessionsAreNotStolen(t *testing.T) {
	u, _ := users(t)
	_, addr, _ := startBroker(t, newOwner(releaseAll), func(c *BrokerConfig) { c.Users = u })
	expiry := uint32(3600)
	id := func(user string) func(*paho.Connect) {
		return func(p *paho.Connect) {
			asUser(user, user)(p)
			p.ClientID, p.CleanStart, p.Properties = "shared-id", false, &paho.ConnectProperties{SessionExpiryInterval: &expiry}
		}
	}
	first, code := knock(t, dialPlain(t, addr), id("pump-1"))
	if code != 0 {
		t.Fatalf("got 0x%02X", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := first.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "devices/pump-1/commands/#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, code := knock(t, dialPlain(t, addr), id("pump-2")); code != 0x86 {
		t.Errorf("another takes a session that is in use: 0x%02X", code)
	}
	_ = first.Disconnect(&paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: &expiry}})
	<-first.Done()
	if _, code := knock(t, dialPlain(t, addr), id("pump-2")); code != 0x86 {
		t.Errorf("another takes a session whose owner is away: 0x%02X", code)
	}
	backend := newDevice(t, addr, asUser("backend", "backend"))
	if _, err := backend.publish("devices/pump-1/commands/open", 1, false, "now"); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	again := paho.NewClient(paho.ClientConfig{
		Conn: dialPlain(t, addr),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- string(p.Packet.Payload)
			return true, nil
		}},
	})
	p := &paho.Connect{KeepAlive: 30}
	id("pump-1")(p)
	if ack, err := again.Connect(ctx, p); err != nil || !ack.SessionPresent {
		t.Fatalf("its owner comes back: %v, %v", ack, err)
	}
	defer func() {
		_ = again.Disconnect(&paho.Disconnect{})
		<-again.Done()
	}()
	select {
	case m := <-got:
		if m != "now" {
			t.Errorf("got %q", m)
		}
	case <-time.After(10 * time.Second):
		t.Error("what came while its owner was away is lost")
	}
}

// TestUsersChange: who is taken out of the file has to go, and comes in no more; who comes in by
// certificate needs no line there.
func TestUsersChange(t *testing.T) {
	u, file := users(t)
	b, addr, _ := startBroker(t, newOwner(releaseAll), func(c *BrokerConfig) { c.Users = u })
	life, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(life, 5*time.Millisecond) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	pump, _ := knock(t, dialPlain(t, addr), asUser("pump-1", "pump-1"))
	other, _ := knock(t, dialPlain(t, addr), asUser("pump-2", "pump-2"))
	if err := os.WriteFile(file, []byte("users:\n- {name: pump-2, password: "+hashOf(t, "pump-2")+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pump.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("pump-1 stays")
	}
	select {
	case <-other.Done(): // its hash is another one now, as if its password were
	case <-time.After(10 * time.Second):
		t.Fatal("pump-2 stays with its former password")
	}
	if _, code := knock(t, dialPlain(t, addr), asUser("pump-1", "pump-1")); code != 0x86 {
		t.Errorf("pump-1 comes in: 0x%02X", code)
	}
	if _, code := knock(t, dialPlain(t, addr), asUser("pump-2", "pump-2")); code != 0 {
		t.Errorf("pump-2 does not come in: 0x%02X", code)
	}
	eventually(t, "both are gone", func() bool { return b.Stats().Connected.Load() == 1 })
}

func TestDeviceCertificates(t *testing.T) {
	ours, theirs := certstest.New(t), certstest.New(t)
	store, err := certs.Open(ours.Node(t))
	if err != nil {
		t.Fatal(err)
	}
	u, err := auth.OpenDeviceUsers("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o := newOwner(releaseAll)
	_, addr, _ := startBroker(t, o, func(c *BrokerConfig) {
		c.TLS, c.Users = store.Server(tls.VerifyClientCertIfGiven, nil), u
	})
	connect := func(f certs.Files) (*tls.Conn, error) {
		cfg := certstest.Config(t, f)
		return tls.Dial("tcp", addr, cfg)
	}
	nc, err := connect(ours.Client(t, "pump-1"))
	if err != nil {
		t.Fatal(err)
	}
	pump, code := knock(t, nc, nil)
	if code != 0 {
		t.Fatalf("got 0x%02X", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for topic, want := range map[string]byte{"devices/pump-1/telemetry": 0, "devices/pump-2/telemetry": 0x87} {
		if r, err := pump.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("{}")}); r == nil || r.ReasonCode != want {
			t.Errorf("%s: got %+v, %v; want 0x%02X", topic, r, err, want)
		}
	}
	if nc, err = connect(certs.Files{CA: ours.File}); err != nil {
		t.Fatal(err)
	}
	if _, code := knock(t, nc, nil); code != 0x86 {
		t.Errorf("without a certificate: got 0x%02X", code)
	}
	f := theirs.Client(t, "pump-1")
	f.CA = ours.File
	if nc, err = connect(f); err == nil {
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err = nc.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("a certificate of others: %v", err)
		}
		_ = nc.Close()
	}
}

// TestAnonymousDevices are confined to their client ids, and cannot be those who have a password.
func TestAnonymousDevices(t *testing.T) {
	u, _ := users(t)
	_, addr, _ := startBroker(t, newOwner(releaseAll), func(c *BrokerConfig) { c.Users, c.Anonymous = u, true })
	id := func(id string) func(*paho.Connect) { return func(p *paho.Connect) { p.ClientID = id } }
	c, code := knock(t, dialPlain(t, addr), id("guest"))
	if code != 0 {
		t.Fatalf("got 0x%02X", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for topic, want := range map[string]byte{"devices/guest/telemetry": 0, "devices/pump-1/telemetry": 0x87} {
		if r, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("{}")}); r == nil || r.ReasonCode != want {
			t.Errorf("%s: got %+v, %v; want 0x%02X", topic, r, err, want)
		}
	}
	for _, name := range []string{"pump-1", "fan-3"} {
		if _, code := knock(t, dialPlain(t, addr), id(name)); code != 0x86 {
			t.Errorf("anonymous %s: got 0x%02X", name, code)
		}
	}
}
