package mqtt

import (
	"bufio"
	"bytes"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/doppel-iot/doppel/actors/twin"
)

// A broker that uses a topic alias, though we allowed none, is told so and left.
func TestClientLeavesABrokerThatUsesAliases(t *testing.T) {
	told := make(chan []byte, 10)
	f := startFakeBroker(t, &fakeBroker{script: func(c net.Conn, r *bufio.Reader, _ int) error {
		alias := uint16(1)
		p := &packets.Publish{Topic: "devices/a/telemetry", QoS: 1, PacketID: 1, Properties: &packets.Properties{TopicAlias: &alias}}
		if _, err := p.WriteTo(c); err != nil {
			return err
		}
		b := make([]byte, 4)
		if _, err := r.Read(b); err != nil {
			return err
		}
		told <- b
		return nil
	}})
	o := newOwner(releaseAll)
	c, err := New(Config{URLs: []string{f.Addr().String()}, ClientID: "node-1"}, o, o, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	start(t, c.Run)
	for range 2 { // and it tries again
		if got, want := <-told, []byte{0xE0, 2, 0x94, 0}; !bytes.Equal(got, want) {
			t.Errorf("told the broker % X, want % X", got, want)
		}
	}
	if got := len(o.received()); got != 0 {
		t.Errorf("%d messages delivered, want none", got)
	}
}

// lines keeps what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func TestClientWarnsOfABrokerThatLosesMessages(t *testing.T) {
	few, short, none := uint16(20), uint32(60), byte(0)
	f := startFakeBroker(t, &fakeBroker{connack: packets.Properties{
		ReceiveMaximum: &few, SessionExpiryInterval: &short, MaximumQOS: &none, SharedSubAvailable: &none,
	}})
	logged := &lines{}
	o := newOwner(releaseAll)
	c, err := New(Config{URLs: []string{f.Addr().String()}, ClientID: "node-1"}, o, o, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	start(t, c.Run)
	for _, want := range []string{
		"max_queued_messages 0", "asked_seconds=604800 granted_seconds=60", "grants QoS 0 only", "no shared subscriptions",
	} {
		eventually(t, "logged: "+want, func() bool { return logged.has(want) })
	}
}

func TestClientSeesMosquittoDefaults(t *testing.T) {
	m := startMosquitto(t, "")
	logged := &lines{}
	o := newOwner(releaseAll)
	c, err := New(Config{URLs: []string{m.addr}, ClientID: "node-1"}, o, o, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	start(t, c.Run)
	eventually(t, "warning", func() bool { return logged.has("max_inflight_messages 0") })
}

func TestClientTriesEveryURL(t *testing.T) {
	m := startMosquitto(t, recommended)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there
	startClient(t, m.addr, newOwner(releaseAll), func(c *Config) {
		c.URLs = []string{"mqtt://" + l.Addr().String(), "mqtt://" + m.addr}
	})
}

func TestBackoffDoublesAndRecovers(t *testing.T) {
	l := &link{}
	if got := l.backoff(0); got != 0 {
		t.Errorf("the first attempt waits %s", got)
	}
	l.everUp = true
	l.hurried = 3
	for attempt, most := range map[int]time.Duration{0: 1200 * time.Millisecond, 2: 4800 * time.Millisecond, 60: 9600 * time.Millisecond} {
		for range 50 {
			if got := l.backoff(attempt); got < most/3 || got > most {
				t.Errorf("attempt %d waits %s, want %s to %s", attempt, got, most/3, most)
			}
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	o := newOwner(releaseAll)
	for name, c := range map[string]Config{
		"no url":       {ClientID: "x"},
		"no id":        {URLs: []string{"h:1"}},
		"group":        {URLs: []string{"h:1"}, ClientID: "x", Group: "a/b"},
		"root":         {URLs: []string{"h:1"}, ClientID: "x", TopicRoot: "a/+"},
		"keep alive":   {URLs: []string{"h:1"}, ClientID: "x", KeepAlive: time.Millisecond},
		"short expiry": {URLs: []string{"h:1"}, ClientID: "x", SessionExpiry: time.Millisecond},
		"limit":        {URLs: []string{"h:1"}, ClientID: "x", Limit: -1},
	} {
		if _, err := New(c, o, o, testLog(t)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, c := range map[string]BrokerConfig{"root": {TopicRoot: "#"}, "window": {MaxUnacked: -1}} {
		if _, err := NewBroker(c, o, o, testLog(t)); err == nil {
			t.Errorf("broker %s: accepted", name)
		}
	}
}

func TestRejectionsAreLimited(t *testing.T) {
	stats := &Stats{}
	r := newRejects(nil, newTopics("devices"), stats)
	for range 10 {
		r.Rejected("a", twin.TooLarge, "x")
	}
	r.Rejected("no id", twin.TooLarge, "x")
	if got := len(r.queue); got != 1 {
		t.Errorf("%d waiting for one device, want 1", got)
	}
	for i := range 10 * rejectQueue {
		r.Rejected(strings.Repeat("d", 1+i%100)+strings.Repeat("e", 1+i/100), twin.TooLarge, "x")
	}
	if got := len(r.queue); got != rejectQueue {
		t.Errorf("%d waiting, want the queue's %d", got, rejectQueue)
	}
	if got, want := stats.Unsaid.Load(), uint64(9+1+10*rejectQueue-(rejectQueue-1)); got != want {
		t.Errorf("%d unsaid, want %d", got, want)
	}
}
