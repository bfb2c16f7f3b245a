package node_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// audit asks for the accounts.
func audit(t *testing.T, n *nodetest.Node, deep bool) *doppelv1.Audit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a, err := n.Fleet().GetAudit(ctx, &doppelv1.GetAuditRequest{Deep: deep})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// busy feeds a device with good, late, repeated and broken samples.
func busy(t *testing.T, n *nodetest.Node) *nodetest.Device {
	t.Helper()
	d := n.Device(nodetest.Unique("audited"))
	for i := range 20 {
		d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"a":%d}}`, i+1, i%3))
	}
	d.Telemetry(`{"boot":1,"seq":20,"metrics":{"a":1}}`)
	d.Telemetry(`{"boot":1,"seq":22,"metrics":{"a":1}}`)
	d.Telemetry(`{broken`)
	n.Await(d.ID, "behind the gap", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetGaps() == 1 })
	d.Telemetry(`{"boot":1,"seq":21,"metrics":{"a":1}}`)
	n.Await(d.ID, "everything", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetLate() == 1 })
	return d
}

// TestAudit: node, twins, log and dead letters agree, before and after a restart, and the state hashes
// of both lives are the same.
func TestAudit(t *testing.T) {
	cfg := nodetest.Embedded(t)
	n := nodetest.Start(t, cfg)
	d := busy(t, n)
	a := audit(t, n, true)
	if !a.GetBalanced() || a.GetReceived() != 24 || a.GetTotals().GetDuplicate() != 1 || a.GetTotals().GetDeadLettered() != 1 || a.GetInFlight() != 0 {
		t.Errorf("audit: %v", a)
	}
	if w := a.GetTwins(); w.GetApplied() != 21 || w.GetLate() != 1 || w.GetDeadLettered() != 1 || w.GetGaps() != 1 || w.GetMissing() != 0 {
		t.Errorf("twins: %v", w)
	}
	if l := a.GetLog(); !l.GetWhole() || l.GetRefused() != 1 || l.GetDeadLetters() != 1 || l.GetUncovered() != 0 || l.GetRecords() < 24 {
		t.Errorf("log: %v", l)
	}
	if a.GetRows() != nil {
		t.Errorf("rows without QuestDB: %v", a.GetRows())
	}
	hashes := func(a *doppelv1.Audit) (all []uint64) {
		for _, p := range a.GetPartitions() {
			all = append(all, p.GetStateHash())
		}
		return all
	}
	before := hashes(a)
	n.Stop()
	n = nodetest.Start(t, cfg)
	again := audit(t, n, false)
	if after := hashes(again); !again.GetBalanced() || fmt.Sprint(before) != fmt.Sprint(after) || again.GetLog() != nil {
		t.Errorf("after the restart: state hashes %x, before %x; %v", after, before, again)
	}
	if a := audit(t, n, true); !a.GetBalanced() {
		t.Errorf("after the restart: %s", a.GetDifference())
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	r, err := n.Twins().ReplayTwin(ctx, &doppelv1.ReplayTwinRequest{Id: d.ID})
	if err != nil || !r.GetEqual() || r.GetStart() != "creation" {
		t.Errorf("replay: %v, %v", r, err)
	}
	first, err := n.Twins().GetTwin(ctx, &doppelv1.GetTwinRequest{Id: d.ID, AsOf: &doppelv1.GetTwinRequest_Version{Version: 1}})
	if err != nil || first.GetCounters().GetApplied()+first.GetCounters().GetHeld() > 1 || first.GetVersion() != 1 {
		t.Errorf("as of version 1: %v, %v", first, err)
	}
	_, err = n.Twins().GetTwin(ctx, &doppelv1.GetTwinRequest{Id: d.ID, AsOf: &doppelv1.GetTwinRequest_Version{Version: 1000}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("as of a version to come: %v", err)
	}
}

// TestAuditOfRows: every sample has its row in QuestDB, and a missing one is named.
func TestAuditOfRows(t *testing.T) {
	cfg := nodetest.Real(t)
	n := nodetest.Start(t, cfg)
	d := busy(t, n)
	if a := audit(t, n, true); !a.GetBalanced() || a.GetRows().GetRows() != 22 || a.GetRows().GetSamples() != 22 {
		t.Errorf("audit: %v", a)
	}
	insert := fmt.Sprintf("INSERT INTO telemetry (ts, device, boot, seq) VALUES (now(), '%s', 1, 1000)", d.ID)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cfg.QuestDB+"/exec?query="+url.QueryEscape(insert), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("insert: %s, %v", resp.Status, err)
	}
	a := audit(t, n, true)
	for end := time.Now().Add(nodetest.Patience); a.GetRows().GetRows() < 23 && time.Now().Before(end); { // the row shows a little later
		a = audit(t, n, true)
	}
	if a.GetBalanced() || !strings.Contains(a.GetDifference(), d.ID+" has 23 rows for 22 samples") {
		t.Errorf("a row too many: %v", a)
	}
}
