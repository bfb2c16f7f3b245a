package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// listed are a device's letters, newest first, once there are n.
func listed(t *testing.T, n *nodetest.Node, device string, count int) []*doppelv1.DeadLetter {
	t.Helper()
	var got *doppelv1.ListDeadLettersResponse
	if !nodetest.Poll(func() bool {
		var err error
		got, err = n.Fleet().ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{Filter: fmt.Sprintf("device == %q", device)})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.GetDeadLetters()) >= count
	}) || len(got.GetDeadLetters()) != count {
		t.Fatalf("%d letters of %s, want %d: %v", len(got.GetDeadLetters()), device, count, got)
	}
	return got.GetDeadLetters()
}

func redriven(t *testing.T, n *nodetest.Node, req *doppelv1.RedriveDeadLettersRequest) [4]uint64 {
	t.Helper()
	r, err := n.Fleet().RedriveDeadLetters(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return [4]uint64{r.GetRedriven(), r.GetRefusedAgain(), r.GetAlreadyDone(), r.GetNotRedrivable()}
}

// TestRedriveToTwin: a corrected sample arrives late in its twin, once, however often it is redriven, also
// by a node that was started anew; what waited for a quarantine to end is applied in order.
func TestRedriveToTwin(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		var broken atomic.Pointer[string]
		n := nodetest.Start(t, cfg, func(n *node.Node) {
			n.PanicOn(func(device string) bool { b := broken.Load(); return b != nil && *b == device })
		})
		d, q := n.Device(nodetest.Unique("corrected")), n.Device(nodetest.Unique("waits"))
		d.Telemetry(`{"boot":1,"seq":1,"metrics":{"a":1}}`)
		d.Telemetry(`{"boot":1,"seq":2,"metrics":{"a":"bad"}}`)
		d.Telemetry(`{"boot":1,"seq":3,"metrics":{"a":3}}`)
		letter := listed(t, n, d.ID, 1)[0]
		if letter.GetNode() != n.Config.NodeID || letter.GetSourceTopic() != d.Topic("telemetry") || letter.GetAttempts() != 0 {
			t.Errorf("letter %v, want it of this node and topic, for the first time", letter)
		}
		one := &doppelv1.RedriveDeadLettersRequest{Ids: []string{letter.GetId()}}
		if got, want := redriven(t, n, one), [4]uint64{0, 1, 0, 0}; got != want {
			t.Errorf("uncorrected: %v, want %v", got, want)
		}
		one.ReplacementPayload = []byte(`{"boot":1,"seq":2,"metrics":{"a":2}}`)
		if got, want := redriven(t, n, one), [4]uint64{1, 0, 0, 0}; got != want {
			t.Errorf("corrected: %v, want %v", got, want)
		}
		n.Await(d.ID, "late", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetLate() == 1 })
		if got, want := redriven(t, n, one), [4]uint64{0, 0, 1, 0}; got != want {
			t.Errorf("again: %v, want %v", got, want)
		}

		q.Telemetry(`{"boot":1,"seq":1,"metrics":{"a":1}}`)
		n.Await(q.ID, "there", func(*doppelv1.Twin) bool { return true })
		broken.Store(&q.ID)
		for seq := 2; seq <= 4; seq++ {
			q.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"a":%d}}`, seq, seq))
			listed(t, n, q.ID, seq-1)
			broken.Store(nil) // it stays so, whatever comes
		}
		n.Await(q.ID, "quarantined", func(twin *doppelv1.Twin) bool { return twin.GetQuarantined() })
		waiting := &doppelv1.RedriveDeadLettersRequest{Filter: fmt.Sprintf(`device == %q && !redriven`, q.ID)}
		if got, want := redriven(t, n, waiting), [4]uint64{3, 0, 0, 0}; got != want {
			t.Errorf("before the reset: %v, want %v", got, want)
		}
		for _, l := range listed(t, n, q.ID, 6)[:3] { // it takes nothing yet
			if l.GetReason() != "quarantined" || l.GetAttempts() != 1 || l.GetRedriven() {
				t.Errorf("letter %v, want it quarantined for the second time", l)
			}
		}
		twin, err := n.Twins().ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: q.ID})
		if err != nil || twin.GetQuarantined() {
			t.Fatalf("reset: %v, %v; want it to take data again", twin, err)
		}
		if got, want := redriven(t, n, waiting), [4]uint64{3, 0, 0, 0}; got != want {
			t.Errorf("after the reset: %v, want %v", got, want)
		}
		n.Await(q.ID, "at 4, in order", func(twin *doppelv1.Twin) bool {
			return twin.GetSeq() == 4 && twin.GetCounters().GetApplied() == 4 && twin.GetCounters().GetGaps() == 0
		})
		balanced(t, n)
		n.Stop()
		n = nodetest.Start(t, cfg)
		all := &doppelv1.RedriveDeadLettersRequest{Filter: fmt.Sprintf(`device in [%q, %q]`, d.ID, q.ID)}
		if got, want := redriven(t, n, all), [4]uint64{0, 0, 7, 0}; got != want {
			t.Errorf("after a restart: %v, want %v", got, want)
		}
	})
}

// TestUnknownDevices: where telemetry makes no twin, it does not by Kafka either; status and reported do
// by both ways, and then the letters can go.
func TestUnknownDevices(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		cfg.UnknownDevices = "dead-letter"
		n := nodetest.Start(t, cfg)
		for _, kind := range []string{"status", "reported"} {
			payload := map[string]string{"status": `{"online":true}`, "reported": `{"firmware":"1"}`}[kind]
			byMQTT, byKafka := n.Device(nodetest.Unique("mqtt")), nodetest.Unique("kafka")
			const telemetry = `{"boot":1,"seq":1,"metrics":{"a":1}}`
			byMQTT.Telemetry(telemetry)
			produce(t, n, nil, &kgo.Record{Key: []byte(byKafka), Value: []byte(telemetry)})
			for _, id := range []string{byMQTT.ID, byKafka} {
				if l := listed(t, n, id, 1)[0]; l.GetReason() != "unknown_device" {
					t.Errorf("letter %v, want unknown_device", l)
				}
				if twin := n.Twin(id); twin != nil {
					t.Errorf("a refused message made a twin: %v", twin)
				}
			}
			byMQTT.Send(&paho.Publish{Topic: byMQTT.Topic(kind), Payload: []byte(payload)})
			produce(t, n, nil, &kgo.Record{
				Key: []byte(byKafka), Value: []byte(payload), Headers: []kgo.RecordHeader{{Key: "topic", Value: []byte("devices/" + byKafka + "/" + kind)}},
			})
			for _, id := range []string{byMQTT.ID, byKafka} {
				n.Await(id, "known by its "+kind, func(*doppelv1.Twin) bool { return true })
				req := &doppelv1.RedriveDeadLettersRequest{Filter: fmt.Sprintf("device == %q", id)}
				if got, want := redriven(t, n, req), [4]uint64{1, 0, 0, 0}; got != want {
					t.Errorf("%s: redriven %v, want %v", id, got, want)
				}
				n.Await(id, "taken", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetApplied() == 1 })
			}
		}
		balanced(t, n)
	})
}

// TestMetricRange: a value out of range is a letter, by both ways, and stays one until it is corrected.
func TestMetricRange(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		cfg.MetricRanges = []string{"temperature=-40:125"}
		n := nodetest.Start(t, cfg)
		d := n.Device(nodetest.Unique("hot"))
		d.Telemetry(`{"boot":1,"seq":1,"metrics":{"temperature":125,"other":1e9}}`)
		d.Telemetry(`{"boot":1,"seq":2,"metrics":{"temperature":125.1}}`)
		produce(t, n, nil, &kgo.Record{Key: []byte(d.ID), Value: []byte(`{"boot":1,"seq":3,"metrics":{"temperature":-41}}`)})
		letters := listed(t, n, d.ID, 2)
		for _, l := range letters {
			if l.GetReason() != "out_of_range" || !strings.Contains(l.GetDetail(), "metrics.temperature") {
				t.Errorf("letter %v, want out_of_range and the metric", l)
			}
		}
		req := &doppelv1.RedriveDeadLettersRequest{Filter: fmt.Sprintf("device == %q", d.ID)}
		if got, want := redriven(t, n, req), [4]uint64{0, 2, 0, 0}; got != want {
			t.Errorf("redriven %v, want %v", got, want)
		}
		n.Await(d.ID, "in range", func(twin *doppelv1.Twin) bool {
			c := twin.GetCounters()
			return c.GetApplied() == 1 && c.GetDeadLettered() == 2 && c.GetGaps() == 0 && c.GetHeld() == 0
		})
		balanced(t, n)
	})
}

// TestGrowthAlert: letters of a device that grow are an alert that people see.
func TestGrowthAlert(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		d := n.Device(nodetest.Unique("noisy"))
		d.Telemetry(`{"boot":1,"seq":1,"metrics":{"a":1}}`)
		alerts := func() []*doppelv1.Alert {
			got, err := n.Alerts().ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{Filter: fmt.Sprintf(`device == %q && rule == "builtin.deadletters"`, d.ID)})
			if err != nil {
				t.Fatal(err)
			}
			return got.GetAlerts()
		}
		for range 4 {
			d.Telemetry(`{`)
		}
		n.Await(d.ID, "refused 4", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetDeadLettered() == 4 })
		if got := alerts(); len(got) > 0 {
			t.Errorf("4 letters raised %v", got)
		}
		d.Telemetry(`{`)
		if !nodetest.Poll(func() bool { return len(alerts()) == 1 }) {
			t.Fatalf("alerts %v, want one", alerts())
		}
		if a := alerts()[0]; a.GetState() != doppelv1.AlertState_FIRING || a.GetValue() != 5 || a.GetReason() != "5 messages were refused within 1m0s" {
			t.Errorf("alert %v, want it firing for 5 messages", a)
		}
		balanced(t, n)
	})
}

// TestDeadLettersByHTTP: the same as JSON.
func TestDeadLettersByHTTP(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	d := n.Device("aa:bb:cc")
	d.Telemetry(`{"boot":1,"seq":1,"metrics":{"a":1}}`)
	d.Telemetry(`{"boot":1,"seq":2,"metrics":{"a":}}`)
	id := listed(t, n, d.ID, 1)[0].GetId()
	call := func(method, path, body string) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addresses.HTTP+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s, %s", method, path, resp.Status, b)
		}
		return got
	}
	list := call("GET", "/v1/deadLetters?filter=reason%20%3D%3D%20%22not_decodable%22&pageSize=10", "")
	letters, ok := list["deadLetters"].([]any)
	if diff := cmp.Diff(map[string]any{"not_decodable": "1"}, list["byReason"]); !ok || len(letters) != 1 || diff != "" {
		t.Fatalf("list %v, want one letter and its count (-want +got):\n%s", list, diff)
	}
	again := call("POST", "/v1/deadLetters:redrive", `{"ids":["`+id+`"],"dryRun":true}`)
	if again["refusedAgain"] != "1" || again["redriven"] != "0" {
		t.Errorf("dry run %v, want it refused again", again)
	}
	// eyJib290…: {"boot":1,"seq":2,"metrics":{"a":2}}
	sent := call("POST", "/v1/deadLetters:redrive", `{"ids":["`+id+`"],"replacementPayload":"eyJib290IjoxLCJzZXEiOjIsIm1ldHJpY3MiOnsiYSI6Mn19"}`)
	if sent["redriven"] != "1" {
		t.Errorf("redrive %v, want it sent", sent)
	}
	n.Await(d.ID, "at 2", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 2 })
	if twin := call("POST", "/v1/twins/aa:bb:cc:reset", `{}`); twin["id"] != d.ID {
		t.Errorf("reset %v, want the twin", twin)
	}
}
