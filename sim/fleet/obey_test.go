package fleet

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/sim/device"
)

// openBroker is a broker whose traffic the test sees, and takes part in.
type openBroker struct {
	mochi.HookBase
	*mochi.Server
	url string

	mu   sync.Mutex
	seen []packets.Packet // published by clients
	subs int
}

func newOpenBroker(t *testing.T) *openBroker {
	t.Helper()
	b := &openBroker{Server: mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler), InlineClient: true})}
	l := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	for _, err := range []error{b.AddHook(b, nil), b.AddListener(l), b.Serve()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = b.Close() })
	b.url = "mqtt://" + l.Address()
	return b
}

func (b *openBroker) ID() string { return "open" }

func (b *openBroker) Provides(h byte) bool {
	switch h {
	case mochi.OnPublish, mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSubscribed:
		return true
	}
	return false
}

func (b *openBroker) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (b *openBroker) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (b *openBroker) OnSubscribed(_ *mochi.Client, pk packets.Packet, _ []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs += len(pk.Filters)
}

func (b *openBroker) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if !cl.Net.Inline {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, pk)
	}
	return pk, nil
}

// of are the messages on topics with a suffix.
func (b *openBroker) of(suffix string) []packets.Packet {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []packets.Packet
	for _, pk := range b.seen {
		if strings.HasSuffix(pk.TopicName, suffix) {
			all = append(all, pk)
		}
	}
	return all
}

func (b *openBroker) subscriptions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs
}

func (b *openBroker) tell(t *testing.T, topic, payload string, retain bool, p packets.Properties) {
	t.Helper()
	cl, _ := b.Clients.Get("inline")
	err := b.InjectPacket(cl, packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: retain}, TopicName: topic, Payload: []byte(payload), PacketID: 1, Properties: p,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// run sends for devices until the test says stop.
func runFleet(t *testing.T, cfg Config, sources []Source) (f *Fleet, stop func() Result) {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	until := make(chan Result, 1)
	go func() { until <- f.Run(t.Context(), sources, time.Now().Add(time.Hour).UnixNano()) }()
	return f, func() Result {
		f.once.Do(func() { close(f.stop) })
		return <-until
	}
}

func TestInteractive(t *testing.T) {
	for _, version := range []Version{V5, V311} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := newOpenBroker(t)
			// A device that talks once an hour: what is said at once was said for being told.
			d := device.New(device.Config{ID: "a", Boot: 3, Metrics: 1, Start: time.Now().UnixNano(), Interval: int64(time.Hour)})
			b.tell(t, "devices/a/desired", `{"version":1,"desired":{"x":1}}`, true, packets.Properties{})
			_, stop := runFleet(t, Config{Broker: b.url, Version: version, Interactive: true, Format: JSON}, []Source{d})
			await(t, "the retained desired properties are reported", func() bool { return len(b.of("devices/a/reported")) == 1 })
			r := b.of("devices/a/reported")[0]
			user := map[string]string{}
			for _, u := range r.Properties.User {
				user[u.Key] = u.Val
			}
			if string(r.Payload) != `{"x":1}` || version == V5 && (user["boot"] != "3" || user["seq"] != "1") {
				t.Errorf("reports %s with %v", r.Payload, user)
			}
			b.tell(t, "devices/a/commands/ping", `7`, false, packets.Properties{
				ResponseTopic: "answers/here", CorrelationData: []byte("c1"), ContentType: "application/json",
				MessageExpiryInterval: 9, User: []packets.UserProperty{{Key: "k", Val: "v"}},
			})
			topic := "answers/here"
			if version == V311 {
				topic = "devices/a/commands/ping/reply"
			}
			await(t, "the command is answered", func() bool { return len(b.of(topic)) == 1 })
			if a := b.of(topic)[0]; string(a.Payload) != `{"pong":7}` || version == V5 && string(a.Properties.CorrelationData) != "c1" {
				t.Errorf("answers %s with %q", a.Payload, a.Properties.CorrelationData)
			}
			// Told to talk ten times a second, it does.
			b.tell(t, "devices/a/desired", `{"version":2,"desired":{"x":1,"_sampling":{"current_ms":100}}}`, true, packets.Properties{})
			await(t, "samples come quickly", func() bool { return len(b.of("/telemetry")) > 3 })
			await(t, "the interval is reported", func() bool { return len(b.of("/reported")) == 2 })
			// A broken connection: what is retained comes again and is no news.
			before := b.subscriptions()
			for _, cl := range b.Clients.GetAll() {
				if !cl.Net.Inline {
					cl.Stop(packets.ErrServerShuttingDown)
				}
			}
			await(t, "subscribed anew", func() bool { return b.subscriptions() == before+2 })
			n := len(b.of("/telemetry"))
			await(t, "samples go on", func() bool { return len(b.of("/telemetry")) > n+3 })
			stop()
			if got := len(b.of("/reported")); got != 2 {
				t.Errorf("%d reports, want 2", got)
			}
		})
	}
}

// TestQuietFleet: without Interactive nothing is subscribed.
func TestQuietFleet(t *testing.T) {
	b := newOpenBroker(t)
	d := device.New(device.Config{ID: "a", Boot: 3, Metrics: 1, Start: time.Now().UnixNano(), Interval: int64(10 * time.Millisecond), Limit: 5})
	_, stop := runFleet(t, Config{Broker: b.url}, []Source{d})
	await(t, "5 samples", func() bool { return len(b.of("/telemetry")) == 5 })
	stop()
	if got := b.subscriptions(); got != 0 {
		t.Errorf("%d subscriptions, want none", got)
	}
}

// TestStoreAndForward: what a device has to say while it is offline comes later, all of it and in order.
func TestStoreAndForward(t *testing.T) {
	for _, faults := range []Faults{{Offline: 0.2}, {Offline: 0.2, Reorder: 0.1, Dup: 0.1, DropConn: 0.5}} {
		b := newOpenBroker(t)
		const devices, samples = 5, 150
		var sources []Source
		for i := range devices {
			sources = append(sources, device.New(device.Config{
				ID: fmt.Sprint("d", i), Index: uint64(i), Boot: 1, Metrics: 1, Start: time.Now().UnixNano(), Interval: int64(20 * time.Millisecond), Limit: samples,
			}))
		}
		f, stop := runFleet(t, Config{Broker: b.url, Connections: 2, Format: JSON, Faults: faults, Seed: 7}, sources)
		await(t, "all is acknowledged", func() bool { return f.Progress().Acked == devices*samples })
		r := stop()
		if p := f.Progress(); p.Absences < devices {
			t.Errorf("%d absences of %d devices: the fault does nothing", p.Absences, devices)
		}
		seen := make(map[string]map[uint64]bool)
		last := make(map[string]uint64)
		for _, pk := range b.of("/telemetry") {
			var s struct{ Seq uint64 }
			if err := json.Unmarshal(pk.Payload, &s); err != nil {
				t.Fatal(err)
			}
			if seen[pk.TopicName] == nil {
				seen[pk.TopicName] = make(map[uint64]bool)
			}
			if faults.Reorder == 0 && s.Seq != last[pk.TopicName]+1 {
				t.Errorf("%s: number %d behind %d", pk.TopicName, s.Seq, last[pk.TopicName])
			}
			seen[pk.TopicName][s.Seq], last[pk.TopicName] = true, s.Seq
		}
		for i, s := range sources {
			if got := len(seen["devices/"+s.ID()+"/telemetry"]); got != samples || len(r.Devices[i].Unacked) > 0 {
				t.Errorf("%s: %d different samples, want %d; unacknowledged %v", s.ID(), got, samples, r.Devices[i].Unacked)
			}
		}
	}
}
