package api

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestAcknowledgeAlert(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Transition(0x10, "pump-1", alert.Warning, alert.Firing)
	w.Transition(0x11, "pump-1", alert.Warning, alert.Resolved)
	ack := func(id, comment string) (*doppelv1.Alert, error) {
		return w.alerts.AcknowledgeAlert(t.Context(), &doppelv1.AcknowledgeAlertRequest{Id: id, Comment: comment})
	}
	first, err := ack("0000000000000010", "on my way")
	if err != nil {
		t.Fatal(err)
	}
	if first.GetAcknowledgedBy() != "local" || first.GetAcknowledgeComment() != "on my way" || first.GetAcknowledgeTime() == nil {
		t.Errorf("got %v", first)
	}
	again, err := ack("0000000000000010", "on my way")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
		t.Errorf("the same again (-first +again):\n%s", diff)
	}
	for _, tt := range []struct {
		id, comment string
		code        codes.Code
		field       string
	}{
		{"10", "", codes.InvalidArgument, "id"},
		{"", "", codes.InvalidArgument, "id"},
		{"000000000000001G", "", codes.InvalidArgument, "id"},
		{"0000000000000010", strings.Repeat("x", maxComment+1), codes.InvalidArgument, "comment"},
		{"00000000000000ff", "", codes.NotFound, ""},
		{"0000000000000011", "", codes.FailedPrecondition, ""},
	} {
		_, err := ack(tt.id, tt.comment)
		wantCode(t, err, tt.code, tt.field)
		if tt.code != codes.FailedPrecondition {
			continue
		}
		info, ok := status.Convert(err).Details()[0].(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != "ALERT_RESOLVED" {
			t.Errorf("resolved: details %v", status.Convert(err).Details())
		}
	}
}

func TestExplainAlert(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for _, n := range []uint64{3, 0x10} {
		w.Transition(n, "pump-1", alert.Warning, alert.Firing)
	}
	for _, equal := range []bool{true, false} {
		id := "0000000000000010"
		if !equal {
			w.Differ("something")
		}
		got, err := w.alerts.ExplainAlert(t.Context(), &doppelv1.ExplainAlertRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetEqual() != equal || got.GetRecomputed().GetId() != id || len(got.GetEvidence()) == 0 {
			t.Errorf("%s: got %v", id, got)
		}
	}
	for id, code := range map[string]codes.Code{
		"x": codes.InvalidArgument, "00000000000000ff": codes.NotFound, "0000000000000003": codes.OutOfRange,
	} {
		field := ""
		if code == codes.InvalidArgument {
			field = "id"
		}
		_, err := w.alerts.ExplainAlert(t.Context(), &doppelv1.ExplainAlertRequest{Id: id})
		wantCode(t, err, code, field)
	}
}

// TestAlertCallsEnd: a call that cannot be answered ends with its context, and says when to come back.
func TestAlertCallsEnd(t *testing.T) {
	for name, call := range map[string]func(context.Context, *world) error{
		"acknowledge": func(ctx context.Context, w *world) error {
			_, err := w.alerts.AcknowledgeAlert(ctx, &doppelv1.AcknowledgeAlertRequest{Id: "0000000000000010"})
			return err
		},
		"explain": func(ctx context.Context, w *world) error {
			_, err := w.alerts.ExplainAlert(ctx, &doppelv1.ExplainAlertRequest{Id: "0000000000000010"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, HubConfig{})
			w.Transition(0x10, "pump-1", alert.Warning, alert.Firing)
			w.Fail(host.ErrUnavailable)
			err := call(t.Context(), w)
			wantCode(t, err, codes.Unavailable, "")
			if !slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok }) {
				t.Errorf("details %v, want RetryInfo", status.Convert(err).Details())
			}
			w.Block()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			wantCode(t, call(ctx, w), codes.DeadlineExceeded, "")
			ctx, cancel = context.WithCancel(t.Context())
			cancel()
			wantCode(t, call(ctx, w), codes.Canceled, "")
		})
	}
}

// TestShadowsAreHidden: alerts of rules in shadow are shown to those who name them, and to no watch.
func TestShadowsAreHidden(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Transition(0x10, "pump-1", alert.Warning, alert.Firing)
	w.Alarm("pump-1", alert.Alert{ID: 0x11, Rule: "tried", Severity: alert.Critical, State: alert.Firing, FireTime: 1, Shadow: true})
	for filter, want := range map[string]int{
		"": 1, `device == "pump-1"`: 1, "shadow": 1, "!shadow": 1, `shadow || state == "FIRING"`: 2,
	} {
		got, err := w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.GetAlerts()) != want {
			t.Errorf("%q: %d alerts, want %d", filter, len(got.GetAlerts()), want)
		}
	}
	if a, err := w.alerts.GetAlert(t.Context(), &doppelv1.GetAlertRequest{Id: "0000000000000011"}); err != nil || !a.GetShadow() {
		t.Errorf("got %v, %v", a, err)
	}
	s, err := w.alerts.WatchAlerts(t.Context(), &doppelv1.WatchAlertsRequest{Filter: `rule == "tried"`})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || m.GetSnapshotDone() == nil {
		t.Errorf("got %v, %v; want an empty snapshot", m, err)
	}
}
