package query_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func hotRule(id string, enter float64) *doppelv1.Rule {
	return &doppelv1.Rule{Id: id, Kind: "threshold", Metric: "t", Levels: map[string]*doppelv1.Level{"warning": {Enter: enter, Op: ">"}}}
}

// TestRulesAtAnyNode: any node has rules changed, whoever writes them, and shows its own change at once.
func TestRulesAtAnyNode(t *testing.T) {
	w := newWorld(t, 3, nil)
	var wg sync.WaitGroup
	for i := range 12 { // many at a time, at different nodes
		wg.Go(func() {
			n := w.nodes[i%3]
			id := fmt.Sprintf("hot-%d", i)
			got, err := n.rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: hotRule(id, 50)})
			if err != nil || got.GetVersion() != 1 {
				t.Errorf("apply %s: %v, %v", id, got, err)
				return
			}
			if shown, err := n.rules.GetRule(t.Context(), &doppelv1.GetRuleRequest{Id: id}); err != nil || shown.GetVersion() != 1 {
				t.Errorf("%s at the node it was applied at: %v, %v", id, shown, err)
			}
		})
	}
	wg.Wait()
	for i, n := range w.nodes { // the same rule over and over, at each node in turn
		got, err := n.rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: hotRule("hot-0", float64(60+i))})
		if err != nil || got.GetVersion() != uint64(2+i) {
			t.Errorf("change %d: %v, %v", i, got, err)
		}
	}
	s, err := w.nodes[2].alerts.SilenceAlerts(t.Context(), &doppelv1.SilenceAlertsRequest{Filter: "true", Duration: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		eventually(t, "every node knows all of it", func() bool {
			rules, err := n.rules.ListRules(t.Context(), &doppelv1.ListRulesRequest{PageSize: 1000})
			hot := 0
			for _, r := range rules.GetRules() {
				if r.GetKind() == "threshold" {
					hot++
				}
			}
			silences, err2 := n.alerts.ListSilences(t.Context(), &doppelv1.ListSilencesRequest{})
			return err == nil && err2 == nil && hot == 12 && len(silences.GetSilences()) == 1 && silences.GetSilences()[0].GetId() == s.GetId()
		})
	}
	w.move(0, 1) // another node writes from here on
	if _, err := w.nodes[2].rules.DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: "hot-0"}); err != nil {
		t.Errorf("with another writer: %v", err)
	}
	wantStatus(t, codes.NotFound, "", func() error {
		_, err := w.nodes[0].rules.DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: "hot-0"})
		return err
	})
	wantStatus(t, codes.InvalidArgument, "rule.levels[warning].exit", func() error {
		r := hotRule("bad", 50)
		r.Levels["warning"].Exit = 60
		_, err := w.nodes[0].rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: r})
		return err
	})
}

// TestNobodyWritesRules: while nobody serves partition 0 rules are read and checked, and not changed.
func TestNobodyWritesRules(t *testing.T) {
	w := newWorld(t, 2, nil)
	if err := w.nodes[0].host.Release(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.owners[0] = -1
	w.mu.Unlock()
	for _, n := range w.nodes {
		wantStatus(t, codes.Unavailable, "", func() error {
			_, err := n.rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: hotRule("hot", 50)})
			return err
		})
		if _, err := n.rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: hotRule("hot", 50), ValidateOnly: true}); err != nil {
			t.Errorf("check only: %v", err)
		}
		if _, err := n.rules.ListRules(t.Context(), &doppelv1.ListRulesRequest{}); err != nil {
			t.Errorf("list: %v", err)
		}
	}
}

func wantStatus(t *testing.T, code codes.Code, field string, call func() error) {
	t.Helper()
	err := call()
	if status.Code(err) != code {
		t.Errorf("got %v, want %v", err, code)
	}
	retry, named := false, ""
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = true
		case *errdetails.BadRequest:
			named = d.GetFieldViolations()[0].GetField()
		}
	}
	if retry != (code == codes.Unavailable) || named != field {
		t.Errorf("%v: retry %t, field %q, want field %q", err, retry, named, field)
	}
}
