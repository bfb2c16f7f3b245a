package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// answerable has a request of every method that can be answered in a failingWorld.
var answerable = map[string]proto.Message{
	doppelv1.TwinService_GetTwin_FullMethodName:             &doppelv1.GetTwinRequest{Id: "a"},
	doppelv1.TwinService_BatchGetTwins_FullMethodName:       &doppelv1.BatchGetTwinsRequest{Ids: []string{"a"}},
	doppelv1.TwinService_ListTwins_FullMethodName:           &doppelv1.ListTwinsRequest{},
	doppelv1.TwinService_AggregateTwins_FullMethodName:      &doppelv1.AggregateTwinsRequest{},
	doppelv1.TwinService_WatchTwins_FullMethodName:          &doppelv1.WatchTwinsRequest{},
	doppelv1.TwinService_GetHistory_FullMethodName:          &doppelv1.GetHistoryRequest{Id: "a", Metric: "temperature"},
	doppelv1.TwinService_ReplayTwin_FullMethodName:          &doppelv1.ReplayTwinRequest{Id: "a"},
	doppelv1.TwinService_UpdateTwin_FullMethodName:          &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: "a", Tags: map[string]string{"x": "y"}}},
	doppelv1.TwinService_DeleteTwin_FullMethodName:          &doppelv1.DeleteTwinRequest{Id: "a"},
	doppelv1.TwinService_ResetTwin_FullMethodName:           &doppelv1.ResetTwinRequest{Id: "a"},
	doppelv1.TwinService_InvokeCommand_FullMethodName:       &doppelv1.InvokeCommandRequest{Id: "a", Name: "ping"},
	doppelv1.AlertService_GetAlert_FullMethodName:           &doppelv1.GetAlertRequest{Id: "0000000000000010"},
	doppelv1.AlertService_ListAlerts_FullMethodName:         &doppelv1.ListAlertsRequest{},
	doppelv1.AlertService_WatchAlerts_FullMethodName:        &doppelv1.WatchAlertsRequest{},
	doppelv1.AlertService_ExplainAlert_FullMethodName:       &doppelv1.ExplainAlertRequest{Id: "0000000000000010"},
	doppelv1.AlertService_AcknowledgeAlert_FullMethodName:   &doppelv1.AcknowledgeAlertRequest{Id: "0000000000000010"},
	doppelv1.AlertService_SilenceAlerts_FullMethodName:      &doppelv1.SilenceAlertsRequest{Filter: "true", Duration: durationpb.New(time.Hour)},
	doppelv1.AlertService_ListSilences_FullMethodName:       &doppelv1.ListSilencesRequest{},
	doppelv1.AlertService_ExpireSilence_FullMethodName:      &doppelv1.ExpireSilenceRequest{Id: "0000000000000010"},
	doppelv1.RuleService_ListRules_FullMethodName:           &doppelv1.ListRulesRequest{},
	doppelv1.RuleService_GetRule_FullMethodName:             &doppelv1.GetRuleRequest{Id: "builtin.zscore"},
	doppelv1.RuleService_ApplyRule_FullMethodName:           &doppelv1.ApplyRuleRequest{Rule: &doppelv1.Rule{Id: "r", Kind: "gap", Levels: map[string]*doppelv1.Level{"warning": {}}}},
	doppelv1.RuleService_DeleteRule_FullMethodName:          &doppelv1.DeleteRuleRequest{Id: "builtin.zscore"},
	doppelv1.RuleService_TestRule_FullMethodName:            &doppelv1.TestRuleRequest{Rule: &doppelv1.Rule{Id: "r", Kind: "gap", Levels: map[string]*doppelv1.Level{"warning": {}}}},
	doppelv1.FleetService_GetStatus_FullMethodName:          &doppelv1.GetStatusRequest{},
	doppelv1.FleetService_GetAudit_FullMethodName:           &doppelv1.GetAuditRequest{},
	doppelv1.FleetService_ListDeadLetters_FullMethodName:    &doppelv1.ListDeadLettersRequest{},
	doppelv1.FleetService_RedriveDeadLetters_FullMethodName: &doppelv1.RedriveDeadLettersRequest{Filter: "true"},
	doppelv1.FleetService_DrainNode_FullMethodName:          &doppelv1.DrainNodeRequest{Id: "n1"},
}

// Ports that the fleet has not: they fail, and wait, as it does.
type (
	failingLetters struct {
		*apitest.Letters
		fleet *apitest.Fleet
	}
	failingCommands struct{ fleet *apitest.Fleet }
	failingDrains   struct{ fleet *apitest.Fleet }
	failingWrites   struct{ fleet *apitest.Fleet }
)

func (l failingLetters) Bounds(ctx context.Context) (start, end int64, err error) {
	if _, err := l.fleet.Status(ctx); err != nil {
		return 0, 0, err
	}
	return l.Letters.Bounds(ctx)
}

func (c failingCommands) Invoke(ctx context.Context, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error) {
	_, err := c.fleet.Twin(ctx, req.GetId())
	return &doppelv1.InvokeCommandResponse{}, err
}

func (d failingDrains) Drain(ctx context.Context, id string, _ bool) (*doppelv1.Node, error) {
	_, err := d.fleet.Status(ctx)
	return &doppelv1.Node{Id: id}, err
}

func (w failingWrites) Update(ctx context.Context, u host.Update) (*doppelv1.Twin, error) {
	return w.fleet.Twin(ctx, u.Device)
}

func (w failingWrites) Delete(ctx context.Context, id, _ string) error {
	_, err := w.fleet.Twin(ctx, id)
	return err
}

func failingWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, HubConfig{}, func(c *Config) {
		f, _ := c.Twins.(*apitest.Fleet)
		letters, _ := c.DeadLetters.(*apitest.Letters)
		c.DeadLetters, c.Commands, c.Drains, c.Writes = failingLetters{letters, f}, failingCommands{f}, failingDrains{f}, failingWrites{f}
	})
	w.Put(apitest.Twin("a", 1))
	w.Transition(0x10, "a", alert.Warning, alert.Firing)
	return w
}

// ask makes a call and returns its error, of a stream the first.
func (w *world) ask(ctx context.Context, m protoreflect.MethodDescriptor) error {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return err
	}
	out := kind.New().Interface()
	if !m.IsStreamingServer() {
		return w.conn.Invoke(ctx, fullMethod(m), answerable[fullMethod(m)], out)
	}
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, fullMethod(m))
	if err == nil {
		err = s.SendMsg(answerable[fullMethod(m)])
	}
	if errors.Is(err, io.EOF) { // it has its status already
		err = nil
	}
	if err == nil {
		err = s.CloseSend()
	}
	for err == nil {
		err = s.RecvMsg(out)
	}
	return err
}

// TestEveryRPCFails as it should when what is behind it moves, breaks, panics or hangs.
func TestEveryRPCFails(t *testing.T) {
	for _, m := range everyMethod(t, failingWorld(t)) {
		if !strings.HasPrefix(fullMethod(m), "/doppel.") {
			continue
		}
		t.Run(string(m.Name()), func(t *testing.T) {
			if answerable[fullMethod(m)] == nil {
				t.Fatal("it is not in the table")
			}
			w := failingWorld(t)
			if !m.IsStreamingServer() { // a watch outlasts a move
				w.Fail(fmt.Errorf("partition 3: %w", host.ErrUnavailable))
				w.moved(t, m)
			}
			w.Fail(errors.New("disk on fire"))
			w.broken(t, m)
			w.Fail(nil)
			w.Panic(true)
			w.broken(t, m)
			w.Panic(false)
			w.Block()
			w.cancelled(t, m)
		})
	}
}

// TestEveryRPCIsOverdue: the node says itself, before the time is over, what the time went for, and works no
// longer.
func TestEveryRPCIsOverdue(t *testing.T) {
	type call struct {
		m      protoreflect.MethodDescriptor
		w      *world
		answer chan error
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var calls []call
	for _, m := range everyMethod(t, failingWorld(t)) {
		if answerable[fullMethod(m)] == nil {
			continue // TestEveryRPCFails sees to it
		}
		c := call{m, failingWorld(t), make(chan error, 1)}
		c.w.Block()
		calls = append(calls, c)
		go func() { c.answer <- c.w.ask(ctx, m) }()
	}
	for _, c := range calls {
		err := <-c.answer
		wantCode(t, err, codes.DeadlineExceeded, "")
		if !c.m.IsStreamingServer() && !strings.Contains(err.Error(), "read twins") {
			t.Errorf("%s: got %v, want what was waited for", c.m.Name(), err)
		}
		eventually(t, "nobody works for a call whose time is over", func() bool { return c.w.Waiting() == 0 })
	}
}

// moved: it is UNAVAILABLE, and says when to come again.
func (w *world) moved(t *testing.T, m protoreflect.MethodDescriptor) {
	t.Helper()
	err := w.ask(t.Context(), m)
	st := status.Convert(err)
	for _, d := range st.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration() > 0 && st.Code() == codes.Unavailable {
			return
		}
	}
	t.Errorf("moving: got %v with %v, want UNAVAILABLE with RetryInfo", err, st.Details())
}

// broken: it is INTERNAL, and what broke is for the log only.
func (w *world) broken(t *testing.T, m protoreflect.MethodDescriptor) {
	t.Helper()
	err := w.ask(t.Context(), m)
	if st := status.Convert(err); st.Code() != codes.Internal || st.Message() != "internal error" {
		t.Errorf("broken: got %v, want INTERNAL without its cause", err)
	}
}

// cancelled: the work for it ends.
func (w *world) cancelled(t *testing.T, m protoreflect.MethodDescriptor) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- w.ask(ctx, m) }()
	eventually(t, "the call is under way", func() bool { return w.Waiting() > 0 })
	cancel()
	wantCode(t, <-answer, codes.Canceled, "")
	eventually(t, "nobody works for a call that was given up", func() bool { return w.Waiting() == 0 })
}
