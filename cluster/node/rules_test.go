package node_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// hot is a rule for one device.
func hot(id, device string, enter float64) *doppelv1.Rule {
	return &doppelv1.Rule{
		Id: id, Kind: "threshold", Metric: "t", Match: &doppelv1.Match{Device: device},
		Levels: map[string]*doppelv1.Level{"warning": {Enter: enter, Exit: enter - 10, Op: ">"}},
	}
}

func apply(t *testing.T, n *nodetest.Node, r *doppelv1.Rule) *doppelv1.Rule {
	t.Helper()
	got, err := n.Rules().ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: r})
	if err != nil {
		t.Fatalf("apply %s: %v", r.GetId(), err)
	}
	return got
}

// alertsOf are those of a rule, newest first.
func alertsOf(t *testing.T, n *nodetest.Node, rule string) []*doppelv1.Alert {
	t.Helper()
	got, err := n.Alerts().ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{Filter: fmt.Sprintf("rule == %q", rule)})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetAlerts()
}

// awaitAlert waits for the only alert of a rule to be as it should.
func awaitAlert(t *testing.T, n *nodetest.Node, rule, what string, ok func(*doppelv1.Alert) bool) *doppelv1.Alert {
	t.Helper()
	var got []*doppelv1.Alert
	if !nodetest.Poll(func() bool { got = alertsOf(t, n, rule); return len(got) == 1 && ok(got[0]) }) {
		t.Fatalf("alerts of %s are not %s: %v", rule, what, got)
	}
	return got[0]
}

func firing(a *doppelv1.Alert) bool   { return a.GetState() == doppelv1.AlertState_FIRING }
func resolved(a *doppelv1.Alert) bool { return a.GetState() == doppelv1.AlertState_RESOLVED }

// equalReplay: the log of a device gives what is live.
func equalReplay(t *testing.T, n *nodetest.Node, device string) {
	t.Helper()
	got, err := n.Twins().ReplayTwin(t.Context(), &doppelv1.ReplayTwinRequest{Id: device})
	if err != nil || !got.GetEqual() {
		t.Errorf("replay of %s: %v, %v", device, got, err)
	}
}

// inForce sends samples below all bounds until an alert of a canary rule, which was applied last, fires: then
// all rules before it are in force in the partition of the device.
func inForce(t *testing.T, n *nodetest.Node, d *nodetest.Device, seq *int) {
	t.Helper()
	canary := nodetest.Unique("canary")
	apply(t, n, &doppelv1.Rule{
		Id: canary, Kind: "threshold", Metric: "canary", Match: &doppelv1.Match{Device: d.ID}, Levels: map[string]*doppelv1.Level{"info": {Enter: 1, Op: ">"}},
	})
	if !nodetest.Poll(func() bool {
		*seq++
		d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"canary":2}}`, *seq))
		return len(alertsOf(t, n, canary)) > 0
	}) {
		t.Fatal("a rule that was applied does not come in force")
	}
	if _, err := n.Rules().DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: canary}); err != nil {
		t.Fatal(err)
	}
}

// TestInForceWhenAnswered: what is sent after a rule was answered meets it, the first sample, and however many rules
// there are in a row.
func TestInForceWhenAnswered(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		d := n.Device(nodetest.Unique("prompt"))
		for seq := range 20 {
			id := nodetest.Unique("prompt")
			apply(t, n, hot(id, d.ID, 80))
			d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"t":90}}`, seq+1))
			awaitAlert(t, n, id, "firing", firing)
		}
	})
}

// TestRules: a rule is in force from one record of a partition on, its change and its end are, too; nothing of
// that is different after a restart, and a replay gives the same.
func TestRules(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		d, id := n.Device(nodetest.Unique("hot")), nodetest.Unique("hot")
		seq := 0
		send := func(value float64) {
			seq++
			d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"t":%g}}`, seq, value))
		}
		send(90) // before the rule: nobody minds
		made := apply(t, n, hot(id, d.ID, 80))
		if made.GetVersion() != 1 || made.GetUpdateTime() == nil || made.GetMode() != "live" {
			t.Errorf("applied: %v, want version 1, live, with a time", made)
		}
		if again := apply(t, n, hot(id, d.ID, 80)); again.GetVersion() != 1 {
			t.Errorf("applied again unchanged: version %d, want 1", again.GetVersion())
		}
		inForce(t, n, d, &seq)
		if got := alertsOf(t, n, id); len(got) != 0 {
			t.Fatalf("alerts before a sample: %v", got)
		}
		send(95)
		first := awaitAlert(t, n, id, "firing", firing)
		equalReplay(t, n, d.ID)

		n.Stop()
		n = nodetest.Start(t, cfg)
		d = n.Device(d.ID)
		if diff := cmp.Diff(first, awaitAlert(t, n, id, "firing", firing), protocmp.Transform()); diff != "" {
			t.Errorf("alert after a restart (-before +after):\n%s", diff)
		}
		send(60) // below the exit: only the rule can know
		awaitAlert(t, n, id, "resolved", resolved)
		equalReplay(t, n, d.ID)

		changed := apply(t, n, hot(id, d.ID, 50))
		if changed.GetVersion() != 2 {
			t.Errorf("changed: version %d, want 2", changed.GetVersion())
		}
		inForce(t, n, d, &seq)
		send(60)
		var open []*doppelv1.Alert
		if !nodetest.Poll(func() bool { open = alertsOf(t, n, id); return len(open) == 2 && firing(open[0]) }) || open[0].GetRuleVersion() != 2 {
			t.Fatalf("alerts of the changed rule: %v", open)
		}
		if _, err := n.Rules().DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: id}); err != nil {
			t.Fatal(err)
		}
		if !nodetest.Poll(func() bool { open = alertsOf(t, n, id); return len(open) == 2 && resolved(open[0]) }) {
			t.Fatalf("alerts of the deleted rule, though the device says nothing: %v", open)
		}
		equalReplay(t, n, d.ID)
		wantCode(t, codes.NotFound, func() error {
			_, err := n.Rules().GetRule(t.Context(), &doppelv1.GetRuleRequest{Id: id})
			return err
		})
	})
}

func wantCode(t *testing.T, want codes.Code, call func() error) error {
	t.Helper()
	err := call()
	if status.Code(err) != want {
		t.Errorf("got %v, want %v", err, want)
	}
	return err
}

// TestExpressionRule: an expression over the twin is evaluated as it changes, and only on its own.
func TestExpressionRule(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	d, id := n.Device(nodetest.Unique("expr")), nodetest.Unique("expr")
	apply(t, n, &doppelv1.Rule{
		Id: id, Kind: "expression", Expression: `metrics["a"].value > metrics["b"].value && id == "` + d.ID + `"`, Levels: map[string]*doppelv1.Level{"critical": {}},
	})
	seq := 0
	inForce(t, n, d, &seq)
	seq++
	d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"a":2,"b":1}}`, seq))
	a := awaitAlert(t, n, id, "firing", firing)
	if a.GetSeverity() != doppelv1.Severity_CRITICAL || a.GetSeq() != uint64(seq) {
		t.Errorf("alert %v, want critical, by sample %d", a, seq)
	}
	seq++
	d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"b":3}}`, seq))
	awaitAlert(t, n, id, "resolved", resolved)
	equalReplay(t, n, d.ID)
}

// TestBuiltinRule: a built-in rule can be changed, and is given back what it was.
func TestBuiltinRule(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	get := func() *doppelv1.Rule {
		t.Helper()
		r, err := n.Rules().GetRule(t.Context(), &doppelv1.GetRuleRequest{Id: "builtin.zscore"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := get()
	changed := apply(t, n, &doppelv1.Rule{Id: "builtin.zscore", Kind: "zscore", Levels: map[string]*doppelv1.Level{"info": {Enter: 9}}})
	if changed.GetVersion() != before.GetVersion()+1 {
		t.Errorf("version %d of the changed rule, %d before", changed.GetVersion(), before.GetVersion())
	}
	if diff := cmp.Diff(changed, get(), protocmp.Transform()); diff != "" {
		t.Errorf("-applied +got\n%s", diff)
	}
	for range 2 { // the second finds nothing to delete
		if _, err := n.Rules().DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: "builtin.zscore"}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, get(), protocmp.Transform()); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// TestSilences: a silence holds open alerts and those to come, and lets go of them when it ends.
func TestSilences(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		d, id := n.Device(nodetest.Unique("quiet")), nodetest.Unique("quiet")
		apply(t, n, hot(id, d.ID, 80))
		seq := 0
		inForce(t, n, d, &seq)
		seq++
		d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"t":90}}`, seq))
		awaitAlert(t, n, id, "firing", func(a *doppelv1.Alert) bool { return firing(a) && !a.GetSilenced() })
		s, err := n.Alerts().SilenceAlerts(t.Context(), &doppelv1.SilenceAlertsRequest{
			Filter: fmt.Sprintf("device == %q", d.ID), Duration: durationpb.New(time.Hour), Comment: "maintenance",
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.GetCreatedBy() == "" || s.GetComment() != "maintenance" || s.GetEndTime().AsTime().Sub(s.GetCreateTime().AsTime()) != time.Hour {
			t.Errorf("silence %v", s)
		}
		awaitAlert(t, n, id, "silenced", func(a *doppelv1.Alert) bool { return firing(a) && a.GetSilenced() && a.GetSilence() == s.GetId() })
		equalReplay(t, n, d.ID)

		n.Stop()
		n = nodetest.Start(t, cfg)
		list, err := n.Alerts().ListSilences(t.Context(), &doppelv1.ListSilencesRequest{PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, one := range list.GetSilences() {
			found = found || one.GetId() == s.GetId()
		}
		if !found {
			t.Errorf("silences after a restart: %v", list)
		}
		awaitAlert(t, n, id, "silenced after a restart", func(a *doppelv1.Alert) bool { return firing(a) && a.GetSilenced() })
		for range 2 { // the second time it has ended
			ended, err := n.Alerts().ExpireSilence(t.Context(), &doppelv1.ExpireSilenceRequest{Id: s.GetId()})
			if err != nil || ended.GetEndTime().AsTime().After(time.Now()) {
				t.Errorf("expired: %v, %v", ended, err)
			}
		}
		awaitAlert(t, n, id, "no more silenced", func(a *doppelv1.Alert) bool { return firing(a) && !a.GetSilenced() })

		short, err := n.Alerts().SilenceAlerts(t.Context(), &doppelv1.SilenceAlertsRequest{Filter: fmt.Sprintf("device == %q", d.ID), Duration: durationpb.New(2 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		awaitAlert(t, n, id, "silenced for a moment", func(a *doppelv1.Alert) bool { return a.GetSilence() == short.GetId() })
		awaitAlert(t, n, id, "past the end of a silence", func(a *doppelv1.Alert) bool { return !a.GetSilenced() })
		if now := time.Now(); now.Before(short.GetEndTime().AsTime()) {
			t.Errorf("the silence let go at %v, it ends at %v", now, short.GetEndTime().AsTime())
		}
		equalReplay(t, n, d.ID)
	})
}

// TestRuleMeetsSilentDevice: a rule that minds silence is met by devices that were silent before it came.
func TestRuleMeetsSilentDevice(t *testing.T) {
	cfg := nodetest.Embedded(t)
	n := nodetest.Start(t, cfg)
	d, id := n.Device(nodetest.Unique("silent")), nodetest.Unique("silent")
	d.Telemetry(`{"boot":1,"seq":1,"metrics":{"t":1}}`)
	n.Await(d.ID, "there", func(*doppelv1.Twin) bool { return true })
	apply(t, n, &doppelv1.Rule{
		Id: id, Kind: "stale", Match: &doppelv1.Match{Device: d.ID}, ForDuration: durationpb.New(300 * time.Millisecond), Levels: map[string]*doppelv1.Level{"warning": {}},
	})
	awaitAlert(t, n, id, "firing", firing)
	equalReplay(t, n, d.ID)
}

// TestBacktest: a test of a rule over the recorded past gives what the rule gave live.
func TestBacktest(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		d, other := n.Device(nodetest.Unique("tested")), n.Device(nodetest.Unique("other"))
		id := nodetest.Unique("tested")
		rules := []*doppelv1.Rule{
			hot(id+"-t", d.ID, 80),
			{
				Id: id + "-z", Kind: "zscore", Metric: "t", Match: &doppelv1.Match{Device: d.ID}, ForSamples: 2,
				Levels: map[string]*doppelv1.Level{"warning": {Enter: 4, Exit: 2}, "critical": {Enter: 8, Exit: 3}},
			},
			{
				Id: id + "-r", Kind: "rate", Metric: "t", Match: &doppelv1.Match{Device: d.ID},
				Levels: map[string]*doppelv1.Level{"info": {Enter: 20, Exit: 5, Op: ">"}},
			},
			{
				Id: id + "-e", Kind: "expression", Match: &doppelv1.Match{Device: d.ID}, Expression: `metrics["t"].value > 70.0`,
				Levels: map[string]*doppelv1.Level{"warning": {}},
			},
			{
				Id: id + "-s", Kind: "stale", Match: &doppelv1.Match{Device: d.ID}, ForDuration: durationpb.New(3 * time.Second),
				Levels: map[string]*doppelv1.Level{"warning": {}},
			},
		}
		seq, base := 0, time.Now().Add(-time.Hour)
		send := func(value float64) {
			seq++
			d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"time":%q,"metrics":{"t":%g}}`, seq, base.Add(time.Duration(seq)*time.Second).UTC().Format(time.RFC3339Nano), value))
		}
		for i := range 40 { // a baseline from before
			send(20 + float64(i%5))
		}
		for _, r := range rules {
			apply(t, n, r)
		}
		inForce(t, n, d, &seq)
		other.Telemetry(`{"boot":1,"seq":1,"metrics":{"t":99}}`)
		start := time.Now()
		values := []float64{21, 22, 90, 95, 60, 21, 22, 23, 88, 30, 21, 20, 85}
		for _, v := range values {
			send(v)
		}
		n.Await(d.ID, "complete", func(tw *doppelv1.Twin) bool { return tw.GetSeq() == uint64(seq) })
		awaitAlert(t, n, id+"-s", "firing", firing)
		send(20)
		n.Await(d.ID, "complete", func(tw *doppelv1.Twin) bool { return tw.GetSeq() == uint64(seq) })
		awaitAlert(t, n, id+"-s", "resolved", resolved)
		for _, r := range rules {
			live := alertsOf(t, n, r.GetId())
			live = fired(live)
			if len(live) == 0 {
				t.Errorf("%s never fired: it tests nothing", r.GetId())
			}
			got, err := n.Rules().TestRule(t.Context(), &doppelv1.TestRuleRequest{Rule: r, Start: timestamppb.New(start), Devices: []string{d.ID}})
			if err != nil {
				t.Errorf("test %s: %v", r.GetId(), err)
				continue
			}
			if got.GetSamples() != uint64(len(values)+1) {
				t.Errorf("%s: %d samples tested, want %d", r.GetId(), got.GetSamples(), len(values)+1)
			}
			all := cmp.Options{protocmp.Transform(), protocmp.IgnoreFields(&doppelv1.Alert{}, "tags")}
			if diff := cmp.Diff(live, got.GetWouldFire(), all); diff != "" {
				t.Errorf("%s (-live +tested):\n%s", r.GetId(), diff)
			}
		}
	})
}

// fired are those of alerts that did, oldest first.
func fired(alerts []*doppelv1.Alert) []*doppelv1.Alert {
	var out []*doppelv1.Alert
	for _, a := range slices.Backward(alerts) {
		if a.GetFireTime() != nil {
			out = append(out, a)
		}
	}
	return out
}

// TestRuleErrors: what is wrong with a call is said, with the field and what to do.
func TestRuleErrors(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	rules, alerts := n.Rules(), n.Alerts()
	good := hot("good", "", 80)
	with := func(change func(r *doppelv1.Rule)) func(context.Context) error {
		r := hot("bad", "", 80)
		change(r)
		return func(ctx context.Context) error {
			_, err := rules.ApplyRule(ctx, &doppelv1.ApplyRuleRequest{Rule: r})
			return err
		}
	}
	silence := func(filter string, d *durationpb.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := alerts.SilenceAlerts(ctx, &doppelv1.SilenceAlertsRequest{Filter: filter, Duration: d})
			return err
		}
	}
	test := func(change func(r *doppelv1.TestRuleRequest)) func(context.Context) error {
		req := &doppelv1.TestRuleRequest{Rule: good}
		change(req)
		return func(ctx context.Context) error { _, err := rules.TestRule(ctx, req); return err }
	}
	hour := durationpb.New(time.Hour)
	for name, tt := range map[string]struct {
		call  func(ctx context.Context) error
		code  codes.Code
		field string
	}{
		"no rule": {func(ctx context.Context) error {
			_, err := rules.ApplyRule(ctx, &doppelv1.ApplyRuleRequest{})
			return err
		}, codes.InvalidArgument, "rule"},
		"no id":             {with(func(r *doppelv1.Rule) { r.Id = "" }), codes.InvalidArgument, "rule.id"},
		"bad id":            {with(func(r *doppelv1.Rule) { r.Id = "Hot Pump" }), codes.InvalidArgument, "rule.id"},
		"bad kind":          {with(func(r *doppelv1.Rule) { r.Kind = "treshold" }), codes.InvalidArgument, "rule.kind"},
		"no levels":         {with(func(r *doppelv1.Rule) { r.Levels = nil }), codes.InvalidArgument, "rule.levels"},
		"bad exit":          {with(func(r *doppelv1.Rule) { r.Levels["warning"].Exit = 90 }), codes.InvalidArgument, "rule.levels[warning].exit"},
		"bad severity":      {with(func(r *doppelv1.Rule) { r.Levels["panic"] = &doppelv1.Level{} }), codes.InvalidArgument, "rule.levels[panic]"},
		"bad op":            {with(func(r *doppelv1.Rule) { r.Levels["warning"].Op = "=" }), codes.InvalidArgument, "rule.levels[warning].op"},
		"bad mode":          {with(func(r *doppelv1.Rule) { r.Mode = "loud" }), codes.InvalidArgument, "rule.mode"},
		"negative time":     {with(func(r *doppelv1.Rule) { r.ForDuration = durationpb.New(-1) }), codes.InvalidArgument, "rule.for_duration"},
		"broken time":       {with(func(r *doppelv1.Rule) { r.MinDwell = &durationpb.Duration{Seconds: 1, Nanos: -5} }), codes.InvalidArgument, "rule.min_dwell"},
		"no expression":     {with(func(r *doppelv1.Rule) { r.Kind, r.Metric = "expression", "" }), codes.InvalidArgument, "rule.expression"},
		"wrong expression":  {with(func(r *doppelv1.Rule) { r.Kind, r.Metric, r.Expression = "expression", "", "metrics[" }), codes.InvalidArgument, "rule.expression"},
		"number expression": {with(func(r *doppelv1.Rule) { r.Kind, r.Metric, r.Expression = "expression", "", "1 + 1" }), codes.InvalidArgument, "rule.expression"},
		"clock":             {with(func(r *doppelv1.Rule) { r.Kind, r.Metric, r.Expression = "expression", "", "last_seen < now()" }), codes.InvalidArgument, "rule.expression"},
		"get, no id":        {func(ctx context.Context) error { _, err := rules.GetRule(ctx, &doppelv1.GetRuleRequest{}); return err }, codes.InvalidArgument, "id"},
		"get, unknown": {func(ctx context.Context) error {
			_, err := rules.GetRule(ctx, &doppelv1.GetRuleRequest{Id: "nobody"})
			return err
		}, codes.NotFound, ""},
		"delete, malformed": {func(ctx context.Context) error {
			_, err := rules.DeleteRule(ctx, &doppelv1.DeleteRuleRequest{Id: "a/b"})
			return err
		}, codes.InvalidArgument, "id"},
		"delete, unknown": {func(ctx context.Context) error {
			_, err := rules.DeleteRule(ctx, &doppelv1.DeleteRuleRequest{Id: "nobody"})
			return err
		}, codes.NotFound, ""},
		"list, page": {func(ctx context.Context) error {
			_, err := rules.ListRules(ctx, &doppelv1.ListRulesRequest{PageSize: -1})
			return err
		}, codes.InvalidArgument, "page_size"},
		"list, token": {func(ctx context.Context) error {
			_, err := rules.ListRules(ctx, &doppelv1.ListRulesRequest{PageToken: "x"})
			return err
		}, codes.InvalidArgument, "page_token"},
		"silence, no filter": {silence(" ", hour), codes.InvalidArgument, "filter"},
		"silence, filter":    {silence("severty == 1", hour), codes.InvalidArgument, "filter"},
		"silence, no time":   {silence("true", nil), codes.InvalidArgument, "duration"},
		"silence, zero":      {silence("true", durationpb.New(0)), codes.InvalidArgument, "duration"},
		"silence, for ever":  {silence("true", durationpb.New(10000*time.Hour)), codes.InvalidArgument, "duration"},
		"silences, page": {func(ctx context.Context) error {
			_, err := alerts.ListSilences(ctx, &doppelv1.ListSilencesRequest{PageSize: -1})
			return err
		}, codes.InvalidArgument, "page_size"},
		"expire, malformed": {func(ctx context.Context) error {
			_, err := alerts.ExpireSilence(ctx, &doppelv1.ExpireSilenceRequest{Id: "x"})
			return err
		}, codes.InvalidArgument, "id"},
		"expire, unknown": {func(ctx context.Context) error {
			_, err := alerts.ExpireSilence(ctx, &doppelv1.ExpireSilenceRequest{Id: "0123456789abcdef"})
			return err
		}, codes.NotFound, ""},
		"test, no rule":  {test(func(r *doppelv1.TestRuleRequest) { r.Rule = nil }), codes.InvalidArgument, "rule"},
		"test, bad rule": {test(func(r *doppelv1.TestRuleRequest) { r.Rule = &doppelv1.Rule{Id: "x", Kind: "y"} }), codes.InvalidArgument, "rule.kind"},
		"test, backwards": {test(func(r *doppelv1.TestRuleRequest) {
			r.Start, r.End = timestamppb.New(time.Unix(2, 0)), timestamppb.New(time.Unix(1, 0))
		}), codes.InvalidArgument, "start"},
		"test, too long":  {test(func(r *doppelv1.TestRuleRequest) { r.Start = timestamppb.New(time.Unix(1, 0)) }), codes.InvalidArgument, "start"},
		"test, no device": {test(func(r *doppelv1.TestRuleRequest) { r.Devices = []string{"a b"} }), codes.InvalidArgument, "devices"},
	} {
		t.Run(name, func(t *testing.T) {
			err := wantCode(t, tt.code, func() error { return tt.call(t.Context()) })
			if tt.field != "" && violated(err) != tt.field {
				t.Errorf("%v names field %q, want %q", err, violated(err), tt.field)
			}
		})
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	for name, call := range map[string]func(ctx context.Context) error{
		"apply": func(ctx context.Context) error {
			_, err := rules.ApplyRule(ctx, &doppelv1.ApplyRuleRequest{Rule: good})
			return err
		},
		"get": func(ctx context.Context) error {
			_, err := rules.GetRule(ctx, &doppelv1.GetRuleRequest{Id: "good"})
			return err
		},
		"list": func(ctx context.Context) error {
			_, err := rules.ListRules(ctx, &doppelv1.ListRulesRequest{})
			return err
		},
		"delete": func(ctx context.Context) error {
			_, err := rules.DeleteRule(ctx, &doppelv1.DeleteRuleRequest{Id: "good"})
			return err
		},
		"test":    test(func(*doppelv1.TestRuleRequest) {}),
		"silence": silence("true", hour),
		"silences": func(ctx context.Context) error {
			_, err := alerts.ListSilences(ctx, &doppelv1.ListSilencesRequest{})
			return err
		},
		"expire": func(ctx context.Context) error {
			_, err := alerts.ExpireSilence(ctx, &doppelv1.ExpireSilenceRequest{Id: "0123456789abcdef"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			_ = wantCode(t, codes.Canceled, func() error { return call(over) })
			_ = wantCode(t, codes.DeadlineExceeded, func() error { return call(late) })
		})
	}
	checked, err := rules.ApplyRule(t.Context(), &doppelv1.ApplyRuleRequest{Rule: good, ValidateOnly: true})
	if err != nil || checked.GetVersion() != 1 {
		t.Errorf("only checked: %v, %v", checked, err)
	}
	_ = wantCode(t, codes.NotFound, func() error {
		_, err := rules.GetRule(t.Context(), &doppelv1.GetRuleRequest{Id: good.GetId()})
		return err
	})
}

// violated is the field that an error names.
func violated(err error) string {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) == 1 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// TestRulesUnderLoad: rules that change while devices send, and the node starts anew, are in force at one point of
// each partition: what is live is the fold of the log, for every device.
func TestRulesUnderLoad(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		id, devices := nodetest.Unique("load"), []string{}
		for range 4 {
			devices = append(devices, nodetest.Unique("load"))
		}
		n := nodetest.Start(t, cfg)
		const samples = 300
		for round := range 2 {
			var sending sync.WaitGroup
			for i, name := range devices {
				d := n.Device(name)
				sending.Go(func() {
					for seq := round*samples + 1; seq <= (round+1)*samples; seq++ {
						d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"t":%d}}`, seq, (seq*(7+i))%100))
					}
				})
			}
			for i := range 6 {
				apply(t, n, hot(id, "load-*", float64(90-10*i)))
				if i == 3 {
					if _, err := n.Rules().DeleteRule(t.Context(), &doppelv1.DeleteRuleRequest{Id: id}); err != nil {
						t.Error(err)
					}
				}
			}
			sending.Wait()
			if round == 0 {
				n.Stop()
				n = nodetest.Start(t, cfg)
			}
		}
		changes := 0
		for _, name := range devices {
			n.Await(name, "complete", func(tw *doppelv1.Twin) bool { return tw.GetSeq() == 2*samples })
			equalReplay(t, n, name)
			got, err := n.Alerts().ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{Filter: fmt.Sprintf("device == %q && rule == %q", name, id)})
			if err != nil {
				t.Fatal(err)
			}
			changes += len(got.GetAlerts())
		}
		if changes == 0 {
			t.Error("the rule never fired: this tests nothing")
		}
		audit, err := n.Fleet().GetAudit(t.Context(), &doppelv1.GetAuditRequest{Deep: true})
		if err != nil || !audit.GetBalanced() {
			t.Errorf("audit: %v, %v", audit, err)
		}
	})
}
