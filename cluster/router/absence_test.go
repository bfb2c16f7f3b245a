package router_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestSilenceOverAnAbsence: what devices sent while no node was there is on its way when one starts, so
// only a device that then stays silent is stale, and since when it would have been anyway.
func TestSilenceOverAnAbsence(t *testing.T) {
	log := openLog(t)
	began := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var clock atomic.Int64
	clock.Store(began.UnixNano())
	virtual := func(c *host.Config) { c.Clock = clock.Load }
	at := func(device string, seq int) host.Message {
		now := clock.Load()
		payload := fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"x":1}}`, seq, now)
		return host.Message{Kind: host.Telemetry, Device: []byte(device), Payload: []byte(payload), Topic: "devices", ReceivedAt: now}
	}
	n := start(t, log, virtual)
	s := newSender(n)
	for seq := 1; seq <= 20; seq++ {
		clock.Add(int64(time.Second))
		s.send(t, at("talks", seq), at("silent", seq))
		s.settle(t) // taken at that time: the twins learn how often they hear of their devices
	}
	last := time.Unix(0, clock.Load())
	n.stop()

	clock.Add(int64(5 * time.Minute))
	n = start(t, log, virtual)
	clock.Add(int64(2 * time.Second)) // a tick, in which silence would have been noticed
	s = newSender(n)
	s.send(t, at("talks", 21))
	s.settle(t)
	clock.Add(int64(9 * time.Second))
	var alerts []*doppelv1.Alert
	eventually(t, "the silent device is stale", func() bool {
		var err error
		if alerts, err = n.reader.Alerts(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(alerts) > 0
	})
	for _, a := range alerts {
		if a.GetDevice() != "silent" || a.GetRule() != "builtin.stale" {
			t.Errorf("unexpected alert: %v", a)
		}
		if got, want := a.GetFireTime().AsTime(), last.Add(10*time.Second); !got.Equal(want) {
			t.Errorf("fired at %v, want %v: when it would have without the absence", got, want)
		}
	}
}
