package query_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func object(t *testing.T, members map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(members)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func masked(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func wantCode(t *testing.T, what string, err error, want codes.Code, field string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
		return
	}
	if field == "" {
		return
	}
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) == 1 && bad.GetFieldViolations()[0].GetField() == field {
			return
		}
	}
	t.Errorf("%s: details %v, want a violation of %s", what, st.Details(), field)
}

// TestUpdateTwin: any node takes an update, by the mask it names.
func TestUpdateTwin(t *testing.T) {
	w := newWorld(t, 2, nil)
	ctx := t.Context()
	for i, n := range w.nodes {
		id := w.on(w.nodes[0], "pump"+n.id)
		made, err := n.twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{AllowMissing: true, Twin: &doppelv1.Twin{
			Id: id, Tags: map[string]string{"site": "brno", "line": "3"},
			Desired: object(t, map[string]any{"rate": 10, "net": map[string]any{"up": true, "host": "a"}}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if made.GetOwner() != "n0" || made.GetDesiredVersion() != 1 || made.GetTagsVersion() != 1 || made.GetVersion() != 1 {
			t.Errorf("made through n%d: %v", i, made)
		}
		for _, tc := range []struct {
			name    string
			twin    *doppelv1.Twin
			mask    *fieldmaskpb.FieldMask
			desired map[string]any
			tags    map[string]string
		}{
			{
				"a merge patch", &doppelv1.Twin{Desired: object(t, map[string]any{"rate": nil, "net": map[string]any{"host": "b"}})}, masked("desired"),
				map[string]any{"net": map[string]any{"up": true, "host": "b"}},
				map[string]string{"site": "brno", "line": "3"},
			},
			{
				"one member, another one deleted", &doppelv1.Twin{Desired: object(t, map[string]any{"net": map[string]any{"up": false}, "ignored": 1})},
				masked("desired.net.up", "desired.net.host"),
				map[string]any{"net": map[string]any{"up": false}},
				map[string]string{"site": "brno", "line": "3"},
			},
			{
				"a member whose name JSON has changed in the mask", &doppelv1.Twin{Desired: object(t, map[string]any{"maxRate": 5})}, masked("desired.max_rate"),
				map[string]any{"net": map[string]any{"up": false}, "maxRate": 5},
				map[string]string{"site": "brno", "line": "3"},
			},
			{
				"single tags", &doppelv1.Twin{Tags: map[string]string{"floor": "2", "ignored": "x"}}, masked("tags.floor", "tags.line"),
				map[string]any{"net": map[string]any{"up": false}, "maxRate": 5},
				map[string]string{"site": "brno", "floor": "2"},
			},
			{
				"all tags", &doppelv1.Twin{Tags: map[string]string{"site": "oslo"}}, masked("tags"),
				map[string]any{"net": map[string]any{"up": false}, "maxRate": 5},
				map[string]string{"site": "oslo"},
			},
			{
				"what is set", &doppelv1.Twin{Tags: map[string]string{"a": "b"}, Desired: object(t, map[string]any{"net": nil}), Version: 7}, nil,
				map[string]any{"maxRate": 5},
				map[string]string{"a": "b"},
			},
			{
				"no tags", &doppelv1.Twin{}, masked("tags", "desired.maxRate"), nil, nil,
			},
		} {
			tc.twin.Id = id
			got, err := n.twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Twin: tc.twin, UpdateMask: tc.mask})
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			want := &structpb.Struct{}
			if tc.desired != nil {
				want = object(t, tc.desired)
			}
			if diff := cmp.Diff(want, got.GetDesired(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: desired (-want +got):\n%s", tc.name, diff)
			}
			if diff := cmp.Diff(tc.tags, got.GetTags()); diff != "" {
				t.Errorf("%s: tags (-want +got):\n%s", tc.name, diff)
			}
			read, err := w.nodes[1-i].twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
			if err != nil || read.GetEtag() != got.GetEtag() || read.GetVersion() != got.GetVersion() {
				t.Errorf("%s: read from the other node: %v, %v", tc.name, err, read)
			}
		}
	}
}

// TestUpdateTwinErrors: what is wrong is said at any node in the same way, and nothing is logged.
func TestUpdateTwinErrors(t *testing.T) {
	w := newWorld(t, 2, nil)
	ctx := t.Context()
	id := w.on(w.nodes[0], "pump")
	w.sample(id, 1)
	first, err := w.nodes[1].twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Desired: object(t, map[string]any{"a": 1})}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.nodes[0].twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Etag: first.GetEtag(), Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"x": "y"}}})
	if err != nil {
		t.Fatal(err)
	}
	deep := map[string]any{"a": 1}
	for range 10 {
		deep = map[string]any{"a": deep}
	}
	large := map[string]any{"a": strings.Repeat("x", 33<<10)}
	infinite := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(math.Inf(1))}}
	many := make(map[string]string)
	for i := range 65 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	for _, n := range w.nodes {
		for _, tc := range []struct {
			name  string
			req   *doppelv1.UpdateTwinRequest
			code  codes.Code
			field string
		}{
			{"no twin", &doppelv1.UpdateTwinRequest{}, codes.InvalidArgument, "twin"},
			{"no id", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{}}, codes.InvalidArgument, "twin.id"},
			{"no device id", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: "a/b"}}, codes.InvalidArgument, "twin.id"},
			{"nobody", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: "nobody", Tags: map[string]string{"a": "b"}}}, codes.NotFound, ""},
			{"an output field", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: masked("online")}, codes.InvalidArgument, "update_mask"},
			{"everything", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: masked("*")}, codes.InvalidArgument, "update_mask"},
			{"nothing behind a dot", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: masked("tags.")}, codes.InvalidArgument, "update_mask"},
			{"an empty member", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: masked("desired.a..b")}, codes.InvalidArgument, "update_mask"},
			{"too deep a mask", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: masked("desired" + strings.Repeat(".a", 11))}, codes.InvalidArgument, "update_mask"},
			{"too deep", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Desired: object(t, deep)}}, codes.InvalidArgument, "twin.desired"},
			{"too large", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Desired: object(t, large)}}, codes.InvalidArgument, "twin.desired"},
			{"not finite", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Desired: infinite}}, codes.InvalidArgument, "twin.desired"},
			{"too many tags", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Tags: many}}, codes.InvalidArgument, "twin.tags"},
			{"a tag without name", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"": "v"}}}, codes.InvalidArgument, "twin.tags"},
			{"an old etag", &doppelv1.UpdateTwinRequest{Etag: first.GetEtag(), Twin: &doppelv1.Twin{Id: id, Desired: object(t, map[string]any{"a": 2})}}, codes.Aborted, ""},
			{"the etag of a twin that was read", &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Etag: first.GetEtag(), Desired: object(t, map[string]any{"a": 2})}}, codes.Aborted, ""},
		} {
			_, err := n.twins.UpdateTwin(ctx, tc.req)
			wantCode(t, n.id+": "+tc.name, err, tc.code, tc.field)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_, err = n.twins.UpdateTwin(gone, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"a": "b"}}})
		wantCode(t, n.id+": cancelled", err, codes.Canceled, "")
		late, cancel := context.WithTimeout(ctx, time.Nanosecond)
		_, err = n.twins.UpdateTwin(late, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"a": "b"}}})
		cancel()
		wantCode(t, n.id+": too late", err, codes.DeadlineExceeded, "")
	}
	got, err := w.nodes[1].twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
	if err != nil || got.GetVersion() != second.GetVersion() {
		t.Errorf("after all that: version %d, %v; want %d", got.GetVersion(), err, second.GetVersion())
	}
	if _, err := w.nodes[0].twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("a refused update made a twin: %v", err)
	}
}

// TestDeleteTwin: a deleted twin is gone at every node, watchers are told, and what it sent before does not bring it back.
func TestDeleteTwin(t *testing.T) {
	w := newWorld(t, 2, nil)
	ctx := t.Context()
	id := w.on(w.nodes[0], "pump")
	w.sample(id, 1)
	stream, err := w.nodes[1].twins.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{Ids: []string{id}})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *doppelv1.WatchTwinsResponse {
		t.Helper()
		for {
			ev, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if ev.GetHeartbeat() == nil {
				return ev
			}
		}
	}
	if next().GetSnapshot() == nil || next().GetSnapshotDone() == nil {
		t.Fatal("no snapshot")
	}
	for _, n := range w.nodes {
		for _, tc := range []struct {
			name  string
			req   *doppelv1.DeleteTwinRequest
			code  codes.Code
			field string
		}{
			{"no id", &doppelv1.DeleteTwinRequest{}, codes.InvalidArgument, "id"},
			{"nobody", &doppelv1.DeleteTwinRequest{Id: "nobody"}, codes.NotFound, ""},
			{"an old etag", &doppelv1.DeleteTwinRequest{Id: id, Etag: "0011223344556677"}, codes.Aborted, ""},
		} {
			_, err := n.twins.DeleteTwin(ctx, tc.req)
			wantCode(t, n.id+": "+tc.name, err, tc.code, tc.field)
		}
	}
	if _, err := w.nodes[1].twins.DeleteTwin(ctx, &doppelv1.DeleteTwinRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	if ev := next(); ev.GetDeletedId() != id {
		t.Errorf("watcher got %v, want that it is deleted", ev)
	}
	w.sample(id, 1)
	for _, n := range w.nodes {
		_, err := n.twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
		wantCode(t, n.id+": get", err, codes.NotFound, "")
		_, err = n.twins.DeleteTwin(ctx, &doppelv1.DeleteTwinRequest{Id: id})
		wantCode(t, n.id+": again", err, codes.NotFound, "")
		list, err := n.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{})
		if err != nil || len(list.GetTwins()) != 0 || list.GetTotalSize() != 0 {
			t.Errorf("%s: list: %v, %v", n.id, err, list)
		}
	}
	w.sample(id, 2)
	if ev := next(); ev.GetChanged().GetCounters().GetApplied() != 1 {
		t.Errorf("watcher got %v, want that it is back", ev)
	}
	w.take(w.partition(id), 1) // another owner finds the same
	got, err := w.nodes[0].twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
	if err != nil || got.GetCounters().GetApplied() != 1 || got.GetSeq() != 2 {
		t.Errorf("back: %v, %v", err, got)
	}
}

// TestWritesWhilePartitionsMove: an update finds the owner that a partition has by then, or is told to come again.
func TestWritesWhilePartitionsMove(t *testing.T) {
	w := newWorld(t, 2, nil)
	id := w.on(w.nodes[0], "pump")
	w.sample(id, 1)
	p := w.partition(id)
	if err := w.nodes[0].host.Release(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		_, err := n.twins.UpdateTwin(t.Context(), &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"a": "b"}}})
		wantCode(t, n.id+": between two owners", err, codes.Unavailable, "")
	}
	w.nodes[1].host.Own(p)
	eventually(t, "the partition is served", func() bool { return w.nodes[1].host.Partition(p).State == host.Serving })
	w.mu.Lock()
	w.owners[p] = 1
	w.mu.Unlock()
	for i, n := range w.nodes {
		got, err := n.twins.UpdateTwin(t.Context(), &doppelv1.UpdateTwinRequest{
			Twin: &doppelv1.Twin{Id: id, Tags: map[string]string{"by": n.id}},
		})
		if err != nil || got.GetTagsVersion() != uint64(i+1) {
			t.Errorf("%s: %v, %v", n.id, err, got)
		}
	}
}
