package node_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// scene is a node with something to go wrong with.
type scene struct {
	t    *testing.T
	ctx  context.Context // with the token of an admin
	node string

	twins  doppelv1.TwinServiceClient
	alerts doppelv1.AlertServiceClient
	rules  doppelv1.RuleServiceClient
	fleet  doppelv1.FleetServiceClient

	pump     string // a device that is online and takes no commands
	gone     string // one that is offline
	busy     string // one that works at a command with busyKey
	firing   string // id of an alert
	resolved string // id of one that is over
	garbage  string // id of a dead letter that would be refused again
	orphan   string // id of one that is of no device
}

const busyKey = "the-key-of-a-command-under-way"

func newScene(t *testing.T, n *nodetest.Node, c *caller) *scene {
	t.Helper()
	s := &scene{
		t: t, ctx: as(t.Context(), adminToken), node: n.Config.NodeID, pump: "pump-1", gone: "pump-2", busy: "pump-3",
		twins: doppelv1.NewTwinServiceClient(c.conn), alerts: doppelv1.NewAlertServiceClient(c.conn),
		rules: doppelv1.NewRuleServiceClient(c.conn), fleet: doppelv1.NewFleetServiceClient(c.conn),
	}
	pump, gone := n.Device(s.pump), n.Device(s.gone)
	s.firing = s.alarm(pump)
	s.resolved = s.alarm(gone)
	s.until("the alert resolves", func() bool {
		gone.Telemetry(`{"metrics":{"t":20}}`)
		a, err := s.alerts.GetAlert(s.ctx, &doppelv1.GetAlertRequest{Id: s.resolved})
		return err == nil && resolved(a)
	})
	gone.Send(&paho.Publish{Topic: gone.Topic("status"), Retain: true, Payload: []byte(`{"online":false}`)})
	s.until("it is offline", func() bool {
		twin, err := s.twins.GetTwin(s.ctx, &doppelv1.GetTwinRequest{Id: s.gone})
		return err == nil && !twin.GetOnline()
	})
	pump.Telemetry("garbage")
	pump.Send(&paho.Publish{Topic: n.Config.MQTTRoot + "/no good/telemetry", Payload: []byte(`{"metrics":{"t":1}}`)})
	s.garbage, s.orphan = s.letter("not_decodable"), s.letter("device_id")
	s.work(n.Device(s.busy))
	return s
}

func (s *scene) until(what string, ok func() bool) {
	s.t.Helper()
	if !nodetest.Poll(ok) {
		s.t.Fatalf("still not: %s", what)
	}
}

// alarm makes an alert of a device fire, and returns its id.
func (s *scene) alarm(d *nodetest.Device) (id string) {
	s.t.Helper()
	rule := "hot-" + d.ID
	if _, err := s.rules.ApplyRule(s.ctx, &doppelv1.ApplyRuleRequest{Rule: hot(rule, d.ID, 80)}); err != nil {
		s.t.Fatal(err)
	}
	s.until("the alert fires", func() bool {
		d.Telemetry(`{"metrics":{"t":95}}`)
		list, err := s.alerts.ListAlerts(s.ctx, &doppelv1.ListAlertsRequest{Filter: fmt.Sprintf(`rule == %q && state == "FIRING"`, rule)})
		if err != nil || len(list.GetAlerts()) == 0 {
			return false
		}
		id = list.GetAlerts()[0].GetId()
		return true
	})
	return id
}

// letter is the dead letter of a reason.
func (s *scene) letter(reason string) (id string) {
	s.t.Helper()
	s.until("the letter "+reason, func() bool {
		list, err := s.fleet.ListDeadLetters(s.ctx, &doppelv1.ListDeadLettersRequest{Filter: fmt.Sprintf("reason == %q", reason)})
		if err != nil || len(list.GetDeadLetters()) == 0 {
			return false
		}
		id = list.GetDeadLetters()[0].GetId()
		return true
	})
	return id
}

// work gives a device a command that it never answers.
func (s *scene) work(d *nodetest.Device) {
	s.t.Helper()
	d.Telemetry(`{"metrics":{"t":1}}`)
	s.until("it is online", func() bool {
		twin, err := s.twins.GetTwin(s.ctx, &doppelv1.GetTwinRequest{Id: d.ID})
		return err == nil && twin.GetOnline()
	})
	sub := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: d.Topic("commands/work"), QoS: 1}}}
	if _, err := d.Client.Subscribe(s.ctx, sub); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.twins.InvokeCommand(ctx, &doppelv1.InvokeCommandRequest{
			Id: d.ID, Name: "work", Body: structpb.NewStringValue("long"), IdempotencyKey: busyKey, Timeout: durationpb.New(5 * nodetest.Patience),
		})
	}()
	s.t.Cleanup(func() { cancel(); <-ended })
	s.until("the command is with the device", func() bool { return len(d.Received(d.Topic("commands/work"))) > 0 })
}

// state is everything that a call could have changed.
func (s *scene) state() (lines []string) {
	s.t.Helper()
	rules, err := s.rules.ListRules(s.ctx, &doppelv1.ListRulesRequest{})
	s.must(err)
	for _, r := range rules.GetRules() {
		lines = append(lines, fmt.Sprintf("rule %s version %d", r.GetId(), r.GetVersion()))
	}
	silences, err := s.alerts.ListSilences(s.ctx, &doppelv1.ListSilencesRequest{})
	s.must(err)
	for _, x := range silences.GetSilences() {
		lines = append(lines, "silence "+x.GetId())
	}
	twins, err := s.twins.ListTwins(s.ctx, &doppelv1.ListTwinsRequest{OrderBy: "id"})
	s.must(err)
	for _, w := range twins.GetTwins() {
		lines = append(lines, fmt.Sprintf("twin %s version %d etag %s", w.GetId(), w.GetVersion(), w.GetEtag()))
	}
	alerts, err := s.alerts.ListAlerts(s.ctx, &doppelv1.ListAlertsRequest{})
	s.must(err)
	for _, a := range alerts.GetAlerts() {
		lines = append(lines, fmt.Sprintf("alert %s %s %s", a.GetId(), a.GetState(), a.GetAcknowledgedBy()))
	}
	letters, err := s.fleet.ListDeadLetters(s.ctx, &doppelv1.ListDeadLettersRequest{})
	s.must(err)
	for _, l := range letters.GetDeadLetters() {
		lines = append(lines, fmt.Sprintf("letter %s redriven %v", l.GetId(), l.GetRedriven()))
	}
	status, err := s.fleet.GetStatus(s.ctx, &doppelv1.GetStatusRequest{})
	s.must(err)
	for _, n := range status.GetNodes() {
		lines = append(lines, fmt.Sprintf("node %s %s", n.GetId(), n.GetState()))
	}
	slices.Sort(lines)
	return lines
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
