package node_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestRefusedSample: one bad sample of a batch is one dead letter with the whole message, the others
// are applied.
func TestRefusedSample(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		letters := n.Letters()
		d := n.Device(nodetest.Unique("batch"))
		payload := `{"boot":7,"samples":[{"seq":1,"metrics":{"a":1}},{"seq":2,"time":5,"metrics":{"a":2}},{"seq":3,"metrics":{"a":3}}]}`
		d.Telemetry(payload)
		twin := n.Await(d.ID, "applied", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 3 })
		if c := twin.GetCounters(); c.GetApplied() != 2 || c.GetDeadLettered() != 1 || c.GetGaps() != 0 || twin.GetMetrics()["a"].GetValue() != 3 {
			t.Errorf("twin %v, want 2 applied, 1 dead-lettered, no gap, a = 3", twin)
		}
		if !nodetest.Poll(func() bool { return len(letters.Of(d.ID)) > 0 }) {
			t.Fatal("no dead letter")
		}
		all := letters.Of(d.ID)
		h := nodetest.Headers(all[0])
		if len(all) != 1 || string(all[0].Value) != payload || h["reason"] != "time_unit" || !strings.HasPrefix(h["detail"], "samples[1].time: 5 is below 10^17") {
			t.Errorf("%d letters, the first %v %q; want one with the whole message and the index of the sample", len(all), h, all[0].Value)
		}
		balanced(t, n)
	})
}

// TestRefusedDeviceID: a topic without a legal device id has no twin and nobody who could be told.
func TestRefusedDeviceID(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		letters := n.Letters()
		d := n.Device(nodetest.Unique("speaker"))
		for id, detail := range map[string]string{
			"bad id":                 "device id has byte 0x20 at 3, allowed are letters, digits and . _ : @ -",
			"größe":                  "device id has byte 0xC3 at 2, allowed are letters, digits and . _ : @ -",
			"":                       "device id is empty",
			strings.Repeat("x", 129): "device id has 129 bytes, at most 128 are allowed",
		} {
			was := n.Metrics()
			topic := cfg.MQTTRoot + "/" + id + "/telemetry"
			const payload = `{"metrics":{"a":1}}`
			d.Send(&paho.Publish{Topic: topic, Payload: []byte(payload)})
			if !nodetest.Poll(func() bool { return len(letters.Of(id)) > 0 }) {
				t.Fatalf("%q: no dead letter", id)
			}
			l := letters.Of(id)[0]
			h := nodetest.Headers(l)
			if string(l.Value) != payload || h["reason"] != "device_id" || h["detail"] != detail || h["source-topic"] != topic || h["node"] != cfg.NodeID {
				t.Errorf("%q: letter %v %q, want reason device_id, detail %q", id, h, l.Value, detail)
			}
			counted(t, n, was, "device_id")
		}
		list, err := n.Twins().ListTwins(t.Context(), &doppelv1.ListTwinsRequest{})
		if err != nil || len(list.GetTwins()) != 0 {
			t.Errorf("twins %v, %v; want none", list.GetTwins(), err)
		}
		balanced(t, n)
	})
}

// TestRefusedUnknownDevice: with unknown-devices dead-letter telemetry makes no twin, status does.
func TestRefusedUnknownDevice(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		cfg.UnknownDevices = "dead-letter"
		n := nodetest.Start(t, cfg)
		letters := n.Letters()
		r := refusal{
			payload: `{"boot":1,"seq":1,"metrics":{"a":1}}`, reason: "unknown_device",
			detail: "no twin of this device exists and unknown-devices is dead-letter (1 samples); make the twin first",
		}
		d := n.Device(nodetest.Unique("stranger"))
		was := n.Metrics()
		d.Telemetry(r.payload)
		letter := r.letter(t, n, letters, d, time.Now())
		counted(t, n, was, r.reason)
		bad := func() *paho.Publish { return &paho.Publish{Topic: d.Topic("telemetry"), Payload: []byte(r.payload)} }
		if !nodetest.Poll(r.told(t, d, bad, letter["detail"])) {
			t.Error("the device was not told")
		}
		if twin := n.Twin(d.ID); twin != nil {
			t.Errorf("a refused message made a twin: %v", twin)
		}
		d.Send(&paho.Publish{Topic: d.Topic("status"), Payload: []byte(`{"online":true}`)})
		n.Await(d.ID, "known", func(twin *doppelv1.Twin) bool { return twin.GetOnline() })
		d.Telemetry(r.payload)
		n.Await(d.ID, "taken", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetApplied() == 1 })
		balanced(t, n)
	})
}

// TestQuarantine: a twin whose code panics is set aside with its input in the dead letters; the node
// and its other twins go on.
func TestQuarantine(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		var broken atomic.Pointer[string]
		n := nodetest.Start(t, cfg, func(n *node.Node) {
			n.PanicOn(func(device string) bool { b := broken.Load(); return b != nil && *b == device })
		})
		letters := n.Letters()
		d, other := n.Device(nodetest.Unique("panics")), n.Device(nodetest.Unique("healthy"))
		d.Telemetry(`{"boot":7,"seq":1,"metrics":{"a":1}}`)
		before := n.Await(d.ID, "there", func(*doppelv1.Twin) bool { return true })

		broken.Store(&d.ID)
		r := refusal{
			payload: `{"boot":7,"seq":2,"metrics":{"a":2}}`, reason: "quarantined",
			detail: "the twin's code panicked and it takes no input until reset (1 samples)",
		}
		was := n.Metrics()
		d.Telemetry(r.payload)
		letter := r.letter(t, n, letters, d, time.Now())
		counted(t, n, was, r.reason)
		broken.Store(nil) // it stays so, whatever comes
		for range 2 {
			was = n.Metrics()
			d.Telemetry(r.payload)
			counted(t, n, was, r.reason)
		}
		bad := func() *paho.Publish { return &paho.Publish{Topic: d.Topic("telemetry"), Payload: []byte(r.payload)} }
		if !nodetest.Poll(r.told(t, d, bad, letter["detail"])) {
			t.Error("the device was not told")
		}
		twin := n.Twin(d.ID)
		if !twin.GetQuarantined() || twin.GetDigest() != before.GetDigest() || twin.GetSeq() != 1 {
			t.Errorf("twin %v, want it quarantined as it was before", twin)
		}
		if got := n.Metrics()["doppel_twin_panics_total"]; got != 1 {
			t.Errorf("doppel_twin_panics_total %v, want 1", got)
		}
		for range 2 {
			other.Telemetry(`{"metrics":{"a":1}}`)
		}
		n.Await(other.ID, "going on", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetApplied() == 2 })
		balanced(t, n)
	})
}
