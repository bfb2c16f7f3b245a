package router_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// often makes checkpoints as soon as a twin has changed.
func often(c *host.Config) { c.CheckpointAfter = time.Nanosecond }

// shownBy are twins and alerts as a node shows them, without what a new owner changes.
func shownBy(t *testing.T, n *node) (map[string]*doppelv1.Twin, []*doppelv1.Alert) {
	t.Helper()
	twins := allTwins(t, n)
	for _, tw := range twins {
		tw.Epoch = 0
	}
	alerts, err := n.reader.Alerts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return twins, alerts
}

// spike makes a sample far from what a device sends otherwise.
func spike(seq int, at int64) string {
	return fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":900}}`, seq, at)
}

// TestRestoreFromCheckpoints: a node that left in order leaves nothing to replay, and the next one
// shows the same twins and the same alerts, the resolved ones included.
func TestRestoreFromCheckpoints(t *testing.T) {
	log := openLog(t)
	n := start(t, log, often)
	s := newSender(n)
	msgs := fleetOf(20, 60)
	at := msgs[len(msgs)-1].ReceivedAt
	for d := range 5 { // alerts that fire; some are resolved
		device := fmt.Appendf(nil, "dev-%d", d)
		msgs = append(msgs, host.Message{Kind: host.Telemetry, Device: device, Payload: []byte(spike(61, at+1e9)), Topic: "devices", ReceivedAt: at + 1e9})
		for i := range 80 * (d % 2) {
			payload := fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":20.5}}`, 62+i, at+int64(i+2)*1e9)
			msgs = append(msgs, host.Message{Kind: host.Telemetry, Device: device, Payload: []byte(payload), Topic: "devices", ReceivedAt: at + int64(i+2)*1e9})
		}
	}
	s.send(t, msgs...)
	s.settle(t)
	wantTwins, wantAlerts := shownBy(t, n)
	states := make(map[doppelv1.AlertState]int)
	for _, a := range wantAlerts {
		states[a.GetState()]++
	}
	if states[doppelv1.AlertState_FIRING] == 0 || states[doppelv1.AlertState_RESOLVED] == 0 {
		t.Fatalf("alerts by state: %v, want firing and resolved ones", states)
	}
	n.stop()

	again := start(t, log, often)
	if got := again.host.Stats().Replayed.Load(); got != 0 {
		t.Errorf("%d records replayed behind an owner that left in order", got)
	}
	gotTwins, gotAlerts := shownBy(t, again)
	if diff := cmp.Diff(wantTwins, gotTwins, protocmp.Transform()); diff != "" {
		t.Errorf("twins (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(wantAlerts, gotAlerts, protocmp.Transform()); diff != "" {
		t.Errorf("alerts (-before +after):\n%s", diff)
	}
	// The numbering goes on where it was: what is sent again is a duplicate.
	s2 := newSender(again)
	s2.send(t, msgs...)
	s2.settle(t)
	for id, tw := range allTwins(t, again) {
		if c := tw.GetCounters(); c.GetApplied() != wantTwins[id].GetCounters().GetApplied() || c.GetDuplicate() != c.GetApplied() {
			t.Errorf("%s after everything came again: %v", id, c)
		}
	}
}

// TestRestoreReplaysTheTail: behind an owner that dies, only what no checkpoint includes is replayed.
func TestRestoreReplaysTheTail(t *testing.T) {
	log := openLog(t)
	n := start(t, log, often)
	s := newSender(n)
	msgs := fleetOf(20, 100)
	head, tail := msgs[:1800], msgs[1800:]
	s.send(t, head...)
	s.settle(t)
	floors := n.host.Stats().Floors.Load()
	eventually(t, "every partition has a floor behind all checkpoints", func() bool {
		return n.host.Stats().Floors.Load() >= floors+partitions
	})
	kill := cutOff(n)
	s.send(t, tail...)
	s.settle(t)
	want, _ := shownBy(t, n)
	kill()

	again := start(t, log, often)
	st := again.host.Stats()
	if got := st.Replayed.Load(); got == 0 || got >= uint64(len(msgs)) {
		t.Errorf("%d records replayed", got)
	}
	got, _ := shownBy(t, again)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("twins (-before +after):\n%s", diff)
	}
	if n := st.ReplayDifferences.Load(); n != 0 {
		t.Errorf("%d records replayed differently", n)
	}
}

// cutOff returns a way to end a node without its leaving: its log goes first.
func cutOff(n *node) func() {
	return func() {
		_ = n.client.Close()
		n.stop()
	}
}
