package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func byVersion(v uint64) *doppelv1.GetTwinRequest {
	return &doppelv1.GetTwinRequest{Id: "a", AsOf: &doppelv1.GetTwinRequest_Version{Version: v}}
}

func byTime(t *timestamppb.Timestamp) *doppelv1.GetTwinRequest {
	return &doppelv1.GetTwinRequest{Id: "a", AsOf: &doppelv1.GetTwinRequest_Time{Time: t}}
}

// TestGetTwinAsOf: a twin of the past is a whole twin, and the read mask holds for it too.
func TestGetTwinAsOf(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 9))
	then := timestamppb.New(apitest.Epoch().Add(5500 * time.Millisecond))
	for name, req := range map[string]*doppelv1.GetTwinRequest{"version": byVersion(5), "time": byTime(then)} {
		got, err := w.twins.GetTwin(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := apitest.Twin("a", 5)
		want.Owner = "n0"
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("by %s (-want +got):\n%s", name, diff)
		}
		req.ReadMask = &fieldmaskpb.FieldMask{Paths: []string{"version", "metrics.temperature.value"}}
		got, err = w.twins.GetTwin(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		masked := &doppelv1.Twin{Version: 5, Metrics: map[string]*doppelv1.Metric{"temperature": {Value: 5}}}
		if diff := cmp.Diff(masked, got, protocmp.Transform()); diff != "" {
			t.Errorf("by %s with a mask (-want +got):\n%s", name, diff)
		}
	}
}

// TestPastErrors: each mistake has its code, and the message says what to do about it.
func TestPastErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 9))
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(apitest.Epoch().Add(d)) }
	for name, test := range map[string]struct {
		req  *doppelv1.GetTwinRequest
		code codes.Code
		says string
	}{
		"no id":           {&doppelv1.GetTwinRequest{AsOf: byVersion(3).GetAsOf()}, codes.InvalidArgument, "id: is required"},
		"nobody":          {&doppelv1.GetTwinRequest{Id: "nobody", AsOf: byVersion(3).GetAsOf()}, codes.NotFound, "nobody"},
		"version 0":       {byVersion(0), codes.InvalidArgument, "version: is 0"},
		"version to come": {byVersion(10), codes.InvalidArgument, "version: "},
		"version gone":    {byVersion(2), codes.OutOfRange, "no longer reaches back"},
		"time to come":    {byTime(at(time.Hour)), codes.InvalidArgument, "time: "},
		"time gone":       {byTime(at(time.Second)), codes.OutOfRange, "no longer reaches back"},
		"before creation": {byTime(at(-time.Second)), codes.NotFound, "no such device"},
		"no time":         {byTime(&timestamppb.Timestamp{Nanos: -1}), codes.InvalidArgument, "time: "},
		"before 1970":     {byTime(&timestamppb.Timestamp{Seconds: -1}), codes.InvalidArgument, "not between 1970 and 2262"},
		"behind 2262":     {byTime(&timestamppb.Timestamp{Seconds: 1e10}), codes.InvalidArgument, "not between 1970 and 2262"},
		"wrong mask": {
			&doppelv1.GetTwinRequest{Id: "a", AsOf: byVersion(5).GetAsOf(), ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"nonsense"}}},
			codes.InvalidArgument, "nonsense",
		},
	} {
		_, err := w.twins.GetTwin(t.Context(), test.req)
		if status.Code(err) != test.code || !strings.Contains(status.Convert(err).Message(), test.says) {
			t.Errorf("%s: %v, want %v and %q", name, err, test.code, test.says)
		}
	}
	for id, code := range map[string]codes.Code{"": codes.InvalidArgument, "no id": codes.InvalidArgument, "nobody": codes.NotFound} {
		if _, err := w.twins.ReplayTwin(t.Context(), &doppelv1.ReplayTwinRequest{Id: id}); status.Code(err) != code {
			t.Errorf("replay of %q: %v, want %v", id, err, code)
		}
	}
	w.Fail(host.ErrUnavailable)
	if _, err := w.twins.ReplayTwin(t.Context(), &doppelv1.ReplayTwinRequest{Id: "a"}); status.Code(err) != codes.Unavailable {
		t.Errorf("replay during a move: %v", err)
	}
	w.Fail(errors.New("disk on fire"))
	if _, err := w.twins.GetTwin(t.Context(), byVersion(5)); status.Code(err) != codes.Internal {
		t.Errorf("as of, with a broken log: %v", err)
	}
}

// TestReplayAndAudit: what was compared is told, and what differs.
func TestReplayAndAudit(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 9))
	fleet := doppelv1.NewFleetServiceClient(w.conn)
	for _, difference := range []string{"", "device a, offset 7: digest"} {
		w.Differ(difference)
		got, err := w.twins.ReplayTwin(t.Context(), &doppelv1.ReplayTwinRequest{Id: "a"})
		if err != nil {
			t.Fatal(err)
		}
		want := &doppelv1.ReplayTwinResponse{
			Equal: difference == "", Difference: difference, StateHash: 0x0123456789abcdef, Inputs: 6,
			Start: "anchor", StartOffset: 12, StartVersion: 3, NextOffset: 41, Version: 9,
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("replay (-want +got):\n%s", diff)
		}
		for _, deep := range []bool{false, true} {
			a, err := fleet.GetAudit(t.Context(), &doppelv1.GetAuditRequest{Deep: deep})
			if err != nil {
				t.Fatal(err)
			}
			if a.GetBalanced() != (difference == "") || a.GetDifference() != difference || (a.GetLog() != nil) != deep {
				t.Errorf("audit (deep %t): %v", deep, a)
			}
		}
	}
}
