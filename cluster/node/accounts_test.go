package node_test

import (
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestAccountsCountSamplesOnly: a patch that waits for its turn is no held sample, and a numbering that
// begins somewhere is no gap.
func TestAccountsCountSamplesOnly(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	d := n.Device(nodetest.Unique("patches"))
	patch := func(seq, payload string) {
		d.Send(&paho.Publish{Topic: d.Topic("reported"), Payload: []byte(payload), Properties: &paho.PublishProperties{
			User: paho.UserProperties{{Key: "boot", Value: "1"}, {Key: "seq", Value: seq}},
		}})
	}
	patch("1", `{"a":1}`)
	patch("3", `{"c":3}`)
	if m := n.Metrics(); m["doppel_samples_held"] != 0 || m["doppel_samples_in_flight"] != 0 {
		t.Errorf("%v held and %v in flight with a waiting patch, want none", m["doppel_samples_held"], m["doppel_samples_in_flight"])
	}
	patch("2", `{"b":2}`)
	d.Telemetry(`{"boot":3,"seq":118,"metrics":{"a":1}}`)
	n.Await(d.ID, "begun", func(twin *doppelv1.Twin) bool {
		return twin.GetSeq() == 118 && len(twin.GetReported().GetFields()) == 3
	})
	if m := n.Metrics(); m["doppel_sequence_gaps_total"] != 0 {
		t.Errorf("%v gaps where a numbering begins, want none", m["doppel_sequence_gaps_total"])
	}
	d.Telemetry(`{"boot":3,"seq":120,"metrics":{"a":1}}`)
	n.Await(d.ID, "behind the gap", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 120 })
	if m := n.Metrics(); m["doppel_sequence_gaps_total"] != 1 {
		t.Errorf("%v gaps, want 1", m["doppel_sequence_gaps_total"])
	}
	balanced(t, n)
}

// TestAccountsOverARestart: what the log holds back is in the accounts of whoever settles it.
func TestAccountsOverARestart(t *testing.T) {
	cfg := nodetest.Embedded(t)
	n := nodetest.Start(t, cfg)
	d := n.Device(nodetest.Unique("held"))
	d.Telemetry(`{"boot":1,"seq":1,"metrics":{"a":1}}`)
	n.Await(d.ID, "begun", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 1 })
	d.Telemetry(`{"boot":1,"seq":3,"metrics":{"a":3}}`)
	n.Stop()
	n = nodetest.Start(t, cfg)
	n.Await(d.ID, "behind the gap", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 3 })
	balanced(t, n)
	if got := n.Metrics()["doppel_samples_received_total"]; got != 1 {
		t.Errorf("received %v samples after the restart, want the one that was held", got)
	}
}
