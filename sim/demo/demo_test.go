package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"
)

// counter is what a broker received, by device and boot.
type counter struct {
	mqtt.HookBase

	mu      sync.Mutex
	samples map[string]map[uint64]int
	first   map[string]time.Time // event time of the first sample
}

func (c *counter) ID() string { return "counter" }

func (c *counter) Provides(b byte) bool {
	return b == mqtt.OnPublish || b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (c *counter) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (c *counter) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

func (c *counter) OnPublish(_ *mqtt.Client, p packets.Packet) (packets.Packet, error) {
	var s struct {
		Boot, Seq uint64
		Time      int64
		Metrics   map[string]float64
	}
	if err := json.Unmarshal(p.Payload, &s); err != nil {
		return p, err
	}
	device := strings.TrimSuffix(strings.TrimPrefix(p.TopicName, "devices/"), "/telemetry")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.samples[device] == nil {
		c.samples[device] = make(map[uint64]int)
		c.first[device] = time.Unix(0, s.Time)
	}
	if c.samples[device][s.Boot]++; c.samples[device][s.Boot] != int(s.Seq) {
		c.first[device] = time.Time{} // out of order
	}
	return p, nil
}

// enough: n devices have sent their history.
func (c *counter) enough(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) < n {
		return false
	}
	for _, boots := range c.samples {
		most := 0
		for _, count := range boots {
			most = max(most, count)
		}
		if most < history {
			return false
		}
	}
	return true
}

func TestFleet(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := &counter{samples: make(map[string]map[uint64]int), first: make(map[string]time.Time)}
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	defer server.Close()
	listener := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	for _, err := range []error{server.AddHook(c, nil), server.AddListener(listener), server.Serve()} {
		if err != nil {
			t.Fatal(err)
		}
	}

	const devices = 20
	for round := 1; round <= 2; round++ {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		start := time.Now()
		go func() { ended <- Fleet(ctx, "mqtt://"+listener.Address(), Config{Devices: devices}) }()
		deadline := time.Now().Add(20 * time.Second)
		for !c.enough(devices+5) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if round == 2 { // wait for some of the second boot
			for c.boots("pump-001") < 2 && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if !c.enough(devices+5) || c.boots("pump-001") != round || c.boots("water-flow") != round {
			t.Errorf("round %d: %d devices, boots %d, %d", round, len(c.samples), c.boots("pump-001"), c.boots("water-flow"))
		}
		if round > 1 {
			continue
		}
		// Histories lie in the past, so that baselines exist at once, and come in order.
		for device, at := range c.first {
			if ago := start.Sub(at); ago < (history-2)*time.Second || ago > (history+2)*time.Second {
				t.Errorf("%s begins %v ago", device, ago)
			}
		}
	}
}

func (c *counter) boots(device string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.samples[device])
}

func TestPlanIsWithinTheFleet(t *testing.T) {
	t.Parallel()
	n := 0
	for i := range 200 {
		for _, p := range planned(i, 1) {
			n++
			if p.Seq <= history || p.Seq > history+60 {
				t.Errorf("device %d: anomaly at number %d", i+1, p.Seq)
			}
		}
	}
	if n != 3 {
		t.Errorf("%d planned anomalies, want 3", n)
	}
}

func TestUnreachableBroker(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := Fleet(ctx, "mqtt://127.0.0.1:1", Config{}); err != nil {
		t.Errorf("stopped before it began, but %v", err)
	}
	if err := Fleet(t.Context(), "nonsense", Config{}); err == nil {
		t.Error("no error for a broker that is none")
	}
}

func TestCommandUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--devices", "0"}, {"--rate", "0"}, {"--log-level", "loud"}} {
		cmd := Command()
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetErr(&bytes.Buffer{})
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "usage") {
			t.Errorf("%v: error %v", args, err)
		}
	}
}
