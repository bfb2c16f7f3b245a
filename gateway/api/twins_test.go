package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// wantCode checks the code of an error and, for a bad request, the field it names.
func wantCode(t *testing.T, err error, want codes.Code, field string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != want {
		t.Errorf("got %v (%s), want %v", st.Code(), st.Message(), want)
		return
	}
	if field == "" {
		return
	}
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) == 1 {
			if got := bad.GetFieldViolations()[0]; got.GetField() != field || got.GetDescription() == "" {
				t.Errorf("got violation %v, want one of %s", got, field)
			}
			return
		}
	}
	t.Errorf("no BadRequest in %v", st)
}

func maskOf(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestGetTwin(t *testing.T) {
	w := newWorld(t, HubConfig{})
	want := apitest.Twin("aa:bb:cc:dd:ee:ff", 7)
	w.Put(apitest.Twin("aa:bb:cc:dd:ee:ff", 7))
	got, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "aa:bb:cc:dd:ee:ff"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestGetTwinErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	for _, tc := range []struct {
		name  string
		req   *doppelv1.GetTwinRequest
		code  codes.Code
		field string
	}{
		{"unknown", &doppelv1.GetTwinRequest{Id: "b"}, codes.NotFound, ""},
		{"no id", &doppelv1.GetTwinRequest{}, codes.InvalidArgument, "id"},
		{"illegal id", &doppelv1.GetTwinRequest{Id: "a/b"}, codes.InvalidArgument, "id"},
		{"long id", &doppelv1.GetTwinRequest{Id: strings.Repeat("x", 129)}, codes.InvalidArgument, "id"},
		{"unknown path", &doppelv1.GetTwinRequest{Id: "a", ReadMask: maskOf("metrix")}, codes.InvalidArgument, "read_mask"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := w.twins.GetTwin(t.Context(), tc.req)
			wantCode(t, err, tc.code, tc.field)
		})
	}
}

func TestErrorsOfThePorts(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code codes.Code
	}{
		{fmt.Errorf("partition 3: %w", host.ErrUnavailable), codes.Unavailable},
		{host.ErrClosed, codes.Unavailable},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{status.Error(codes.PermissionDenied, "no"), codes.PermissionDenied},
		{errors.New("secret of the house"), codes.Internal},
	} {
		w := newWorld(t, HubConfig{})
		w.Put(apitest.Twin("a", 1))
		w.Fail(tc.err)
		calls := map[string]func() error{
			"GetTwin": func() error {
				_, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a"})
				return err
			},
			"BatchGetTwins": func() error {
				_, err := w.twins.BatchGetTwins(t.Context(), &doppelv1.BatchGetTwinsRequest{Ids: []string{"a"}})
				return err
			},
			"ListTwins": func() error {
				_, err := w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{})
				return err
			},
			"WatchTwins": func() error {
				s, err := w.twins.WatchTwins(t.Context(), &doppelv1.WatchTwinsRequest{})
				if err == nil {
					_, err = s.Recv()
				}
				return err
			},
			"GetAlert": func() error {
				_, err := w.alerts.GetAlert(t.Context(), &doppelv1.GetAlertRequest{Id: "00000000000000aa"})
				return err
			},
			"ListAlerts": func() error {
				_, err := w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{})
				return err
			},
			"WatchAlerts": func() error {
				s, err := w.alerts.WatchAlerts(t.Context(), &doppelv1.WatchAlertsRequest{})
				if err == nil {
					_, err = s.Recv()
				}
				return err
			},
			"GetStatus": func() error {
				_, err := doppelv1.NewFleetServiceClient(w.conn).GetStatus(t.Context(), &doppelv1.GetStatusRequest{})
				return err
			},
			"GetAudit": func() error {
				_, err := doppelv1.NewFleetServiceClient(w.conn).GetAudit(t.Context(), &doppelv1.GetAuditRequest{})
				return err
			},
		}
		for name, call := range calls {
			err := call()
			if got := status.Code(err); got != tc.code {
				t.Errorf("%s with %v: got %v, want %v", name, tc.err, got, tc.code)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s tells the caller %q", name, err)
			}
			if tc.code == codes.Unavailable && !hasRetry(err) {
				t.Errorf("%s with %v: no RetryInfo", name, tc.err)
			}
		}
	}
}

func hasRetry(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() > 0 {
			return true
		}
	}
	return false
}

func TestPanicInAHandlerIsInternal(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Panic(true)
	_, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a"})
	wantCode(t, err, codes.Internal, "")
	s, err := w.twins.WatchTwins(t.Context(), &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	wantCode(t, err, codes.Internal, "")
	w.Panic(false)
	_, err = w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a"})
	wantCode(t, err, codes.NotFound, "")
}

func TestCancelledAndLateCalls(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Block()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := w.twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: "a"})
	wantCode(t, err, codes.DeadlineExceeded, "")

	ctx, cancel2 := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel2)
	_, err = w.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{})
	wantCode(t, err, codes.Canceled, "")
}

func TestReadMask(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 7))
	full := apitest.Twin("a", 7)
	for _, tc := range []struct {
		paths []string
		want  *doppelv1.Twin
	}{
		{[]string{"id", "seq"}, &doppelv1.Twin{Id: "a", Seq: 7}},
		{[]string{"*"}, full},
		{[]string{"lastSeen", "counters.deadLettered"}, &doppelv1.Twin{LastSeen: full.GetLastSeen(), Counters: &doppelv1.Counters{}}},
		{[]string{"tags.site"}, &doppelv1.Twin{Tags: map[string]string{"site": "brno"}}},
		{[]string{"counters.gaps"}, &doppelv1.Twin{Counters: &doppelv1.Counters{Gaps: 1}}},
		{[]string{"counters", "counters.gaps"}, &doppelv1.Twin{Counters: full.GetCounters()}},
		{[]string{"counters.gaps", "counters"}, &doppelv1.Twin{Counters: full.GetCounters()}},
		{[]string{"metrics.temperature.value", "metrics.vibration"}, &doppelv1.Twin{Metrics: map[string]*doppelv1.Metric{
			"temperature": {Value: 7}, "vibration": {Value: 0.25},
		}}},
		{[]string{"metrics.nosuch"}, &doppelv1.Twin{Metrics: map[string]*doppelv1.Metric{}}},
	} {
		got, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a", ReadMask: maskOf(tc.paths...)})
		if err != nil {
			t.Errorf("%v: %v", tc.paths, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%v (-want +got)\n%s", tc.paths, diff)
		}
	}
	got, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a", ReadMask: maskOf("reported.radio.rssi")})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"radio": map[string]any{"rssi": -70.0}}
	if diff := cmp.Diff(want, got.GetReported().AsMap()); diff != "" {
		t.Errorf("reported.radio.rssi (-want +got)\n%s", diff)
	}
	for _, bad := range []string{"", "Id", "id.x", "counters.nosuch", "metrics.t.nosuch", "last_seen.seconds", "open_alerts.0", "tags..", "tags.a.b"} {
		_, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a", ReadMask: maskOf(bad)})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("mask %q: got %v, want InvalidArgument", bad, err)
		}
	}
}

func TestBatchGetTwins(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	w.Put(apitest.Twin("b", 2))
	got, err := w.twins.BatchGetTwins(t.Context(), &doppelv1.BatchGetTwinsRequest{Ids: []string{"b", "x", "a", "b", "x"}, ReadMask: maskOf("id")})
	if err != nil {
		t.Fatal(err)
	}
	want := &doppelv1.BatchGetTwinsResponse{Twins: []*doppelv1.Twin{{Id: "b"}, {Id: "a"}}, MissingIds: []string{"x"}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	_, err = w.twins.BatchGetTwins(t.Context(), &doppelv1.BatchGetTwinsRequest{Ids: make([]string, 1001)})
	wantCode(t, err, codes.InvalidArgument, "ids")
	_, err = w.twins.BatchGetTwins(t.Context(), &doppelv1.BatchGetTwinsRequest{Ids: []string{"a", "no/slash"}})
	wantCode(t, err, codes.InvalidArgument, "ids")
	_, err = w.twins.BatchGetTwins(t.Context(), &doppelv1.BatchGetTwinsRequest{Ids: []string{"a"}, ReadMask: maskOf("zz")})
	wantCode(t, err, codes.InvalidArgument, "read_mask")
}

func TestUnservedCallsSayUnimplemented(t *testing.T) {
	w := newWorld(t, HubConfig{})
	_, err := w.twins.DeleteTwin(t.Context(), &doppelv1.DeleteTwinRequest{Id: "a"})
	wantCode(t, err, codes.Unimplemented, "")
}
