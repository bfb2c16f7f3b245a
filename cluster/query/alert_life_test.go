package query_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestAlertsAtAnyNode: an alert is acknowledged and explained at every node, wherever its device is, and all
// of them know it then.
func TestAlertsAtAnyNode(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.devices(12)
	w.send("dev-07", host.Status, `{"online":true,"boot":1,"session":1}`)
	w.send("dev-07", host.Status, `{"online":false,"boot":1,"session":1}`)
	alerts, err := w.nodes[0].reader.Alerts(t.Context())
	if err != nil || len(alerts) != 1 {
		t.Fatalf("alerts: %v, %v", alerts, err)
	}
	id := alerts[0].GetId()
	var told *doppelv1.ExplainAlertResponse
	for _, n := range w.nodes {
		ctx := t.Context()
		a, err := n.reader.Acknowledge(ctx, "dev-07", id, n.id, "at "+n.id)
		if err != nil || a.GetAcknowledgedBy() != n.id || a.GetAcknowledgeComment() != "at "+n.id {
			t.Fatalf("%s: acknowledge: %v, %v", n.id, a, err)
		}
		for _, other := range w.nodes {
			got, err := other.reader.Alert(ctx, id)
			if diff := cmp.Diff(a, got, protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("%s acknowledged, %s: %v (-acknowledged +got)\n%s", n.id, other.id, err, diff)
			}
		}
		if _, err := n.reader.Acknowledge(ctx, "dev-08", id, n.id, ""); !errors.Is(err, host.ErrUnknownAlert) {
			t.Errorf("%s: acknowledge of another device: %v", n.id, err)
		}
		if _, err := n.reader.Explain(ctx, "dev-07", "00000000000000aa"); !errors.Is(err, host.ErrUnknownAlert) {
			t.Errorf("%s: explain what never was: %v", n.id, err)
		}
	}
	w.send("dev-07", host.Status, `{"online":true,"boot":1,"session":2}`)
	for _, n := range w.nodes {
		if _, err := n.reader.Acknowledge(t.Context(), "dev-07", id, "eva", ""); !errors.Is(err, host.ErrAlertResolved) {
			t.Errorf("%s: acknowledge a resolved one: %v", n.id, err)
		}
		e, err := n.reader.Explain(t.Context(), "dev-07", id)
		if err != nil || !e.GetEqual() || e.GetRecomputed().GetState() != doppelv1.AlertState_RESOLVED || len(e.GetEvidence()) == 0 {
			t.Fatalf("%s: explain: %v, %v", n.id, e, err)
		}
		if diff := cmp.Diff(told, e, protocmp.Transform()); told != nil && diff != "" {
			t.Errorf("%s explains it otherwise:\n%s", n.id, diff)
		}
		told = e
	}
	p := w.partition("dev-07")
	if err := w.owner("dev-07").host.Release(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.owners[p] = -1
	w.mu.Unlock()
	for _, n := range w.nodes {
		if _, err := n.reader.Acknowledge(t.Context(), "dev-07", id, "eva", ""); !errors.Is(err, host.ErrUnavailable) {
			t.Errorf("%s: nobody serves it: %v", n.id, err)
		}
		if _, err := n.reader.Explain(t.Context(), "dev-07", id); !errors.Is(err, host.ErrUnavailable) {
			t.Errorf("%s: nobody serves it: %v", n.id, err)
		}
	}
}
