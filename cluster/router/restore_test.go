package router_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
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
	var last uint64
	eventually(t, "everything has its checkpoint, and floors stand behind them", func() bool {
		st := n.host.Stats()
		before := last
		last = st.Checkpoints.Load() + st.Floors.Load()
		time.Sleep(200 * time.Millisecond) // four ticks: an owner with anything to write has done so
		return last == before && last == st.Checkpoints.Load()+st.Floors.Load()
	})
	kill := cutOff(n)
	s.send(t, tail...)
	s.settle(t)
	want, _ := shownBy(t, n)
	kill()

	again := start(t, log, often)
	st := again.host.Stats()
	if got := st.Replayed.Load(); got > uint64(len(tail)+20) { // 20 anchors
		t.Errorf("%d records replayed, %d were written behind the checkpoints", got, len(tail))
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

// TestQuarantine: a twin whose code panics is closed and shown as such, across restarts too, is what it
// was before, costs no other twin anything, and goes on where it was once it is reset.
func TestQuarantine(t *testing.T) {
	log := openLog(t)
	var armed atomic.Bool
	n := start(t, log, func(c *host.Config) {
		often(c)
		c.BeforeStep = func(device string) {
			if device == "dev-1" && armed.Load() {
				panic("as a test wants it")
			}
		}
	})
	s := newSender(n)
	msgs := fleetOf(8, 20)
	s.send(t, slices.Clone(msgs[:80])...)
	s.settle(t)
	before := contents(t, n)
	armed.Store(true)
	s.send(t, slices.Clone(msgs[80:])...)
	s.settle(t)
	armed.Store(false)

	check := func(n *node) {
		t.Helper()
		eventually(t, "dev-1 is in quarantine and its partition back", func() bool {
			serving, all := n.host.Restored()
			return serving == all && allTwins(t, n)["dev-1"].GetQuarantined()
		})
		after := contents(t, n)
		if after["dev-1"] != before["dev-1"] {
			t.Errorf("the twin in quarantine is %+v, was %+v", after["dev-1"], before["dev-1"])
		}
		for id, c := range after {
			if id != "dev-1" && c.Applied != 20 {
				t.Errorf("%s beside a quarantine: %+v", id, c)
			}
		}
	}
	check(n)
	if n := n.host.Stats().DeadLettered.Load(); n != 10 {
		t.Errorf("%d dead letters, want 10", n)
	}
	n.stop()

	n = start(t, log, often)
	check(n)
	if got := allTwins(t, n)["dev-1"].GetCounters().GetDeadLettered(); got != 10 {
		t.Errorf("the twin in quarantine counts %d dead letters, want 10", got)
	}
	if err := n.host.Reset(t.Context(), placement.Partition([]byte("dev-1"), partitions), "dev-1"); err != nil {
		t.Fatal(err)
	}
	s = newSender(n)
	s.send(t, slices.Clone(msgs)...)
	s.settle(t)
	tw := allTwins(t, n)["dev-1"]
	if c := tw.GetCounters(); tw.GetQuarantined() || c.GetApplied() != 20 || c.GetDuplicate() != 10 || c.GetLate() != 0 {
		t.Errorf("after the reset: %v", tw)
	}
	if n.host.Stats().ReplayDifferences.Load() != 0 {
		t.Error("the replay of a quarantine differs")
	}
}
