package api

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/history"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// seconds is a time by its distance from the epoch of the fleet.
func seconds(n float64) *timestamppb.Timestamp {
	return timestamppb.New(apitest.Epoch().Add(time.Duration(n * float64(time.Second))))
}

func asked(from, to float64) *doppelv1.GetHistoryRequest {
	return &doppelv1.GetHistoryRequest{Id: "a", Metric: "temperature", Start: seconds(from), End: seconds(to)}
}

// TestGetHistory: the start is in, the end is not; a bucket has nothing of a sample, and a sample nothing of a
// bucket; what has no samples is absent.
func TestGetHistory(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 100))
	got, err := w.twins.GetHistory(t.Context(), asked(2, 5))
	if err != nil {
		t.Fatal(err)
	}
	want := &doppelv1.GetHistoryResponse{Source: "log", Points: []*doppelv1.Point{
		{Time: seconds(2), Boot: 2, Seq: 2, Value: 2}, {Time: seconds(3), Boot: 2, Seq: 3, Value: 3}, {Time: seconds(4), Boot: 2, Seq: 4, Value: 4, Z: new(2.0)},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	req := asked(9, 13)
	req.Interval = durationpb.New(time.Second)
	if got, err = w.twins.GetHistory(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	bucket := func(n float64) *doppelv1.Point {
		return &doppelv1.Point{Time: seconds(n), Count: 1, Mean: n, Min: n, Max: n}
	}
	want.Points = []*doppelv1.Point{bucket(9), bucket(11), bucket(12)}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("buckets (-want +got):\n%s", diff)
	}
	w.Retain(apitest.Epoch().Add(time.Second))
	if got, err = w.twins.GetHistory(t.Context(), asked(200, 300)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&doppelv1.GetHistoryResponse{Source: "log", RetainedFrom: seconds(1)}, got, protocmp.Transform()); diff != "" {
		t.Errorf("nothing (-want +got):\n%s", diff)
	}
}

// TestHistorySpan: what is not said of the span is the last hour.
func TestHistorySpan(t *testing.T) {
	now := apitest.Epoch()
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	for name, test := range map[string]struct {
		start, end  *timestamppb.Timestamp
		from, until time.Duration
	}{
		"neither": {nil, nil, -time.Hour, 0},
		"start":   {at(-time.Minute), nil, -time.Minute, 0},
		"end":     {nil, at(-time.Minute), -61 * time.Minute, -time.Minute},
		"both":    {at(-5 * time.Hour), at(time.Hour), -5 * time.Hour, time.Hour},
	} {
		q, err := historyQuery(&doppelv1.GetHistoryRequest{Id: "a", Metric: "m", Start: test.start, End: test.end}, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := history.Query{Device: "a", Metric: "m", Start: now.Add(test.from).UnixNano(), End: now.Add(test.until).UnixNano(), Limit: 1000}
		if diff := cmp.Diff(want, q); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestHistoryPages: all pages together are the whole answer, also of a span that moves with the clock.
func TestHistoryPages(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 95))
	for name, interval := range map[string]*durationpb.Duration{"samples": nil, "buckets": durationpb.New(3 * time.Second)} {
		t.Run(name, func(t *testing.T) {
			whole := asked(1, 1000)
			whole.Interval = interval
			all, err := w.twins.GetHistory(t.Context(), whole)
			if err != nil || all.GetNextPageToken() != "" {
				t.Fatalf("%v, token %q", err, all.GetNextPageToken())
			}
			for _, size := range []int32{1, 7, int32(len(all.GetPoints()))} {
				req := asked(1, 1000)
				req.Interval, req.PageSize = interval, size
				var got []*doppelv1.Point
				for {
					page, err := w.twins.GetHistory(t.Context(), req)
					if err != nil {
						t.Fatal(err)
					}
					if got = append(got, page.GetPoints()...); page.GetNextPageToken() == "" {
						break
					}
					req.PageToken = page.GetNextPageToken()
				}
				if diff := cmp.Diff(all.GetPoints(), got, protocmp.Transform()); diff != "" {
					t.Errorf("pages of %d (-want +got):\n%s", size, diff)
				}
			}
		})
	}
	first := &doppelv1.GetHistoryRequest{Id: "a", Metric: "m", PageSize: 1}
	q, err := historyQuery(first, apitest.Epoch())
	if err != nil {
		t.Fatal(err)
	}
	first.PageToken = historyToken(first, &q, history.Place{Time: q.Start + 5, Boot: 1 << 63, Seq: 7})
	later, err := historyQuery(first, apitest.Epoch().Add(time.Hour))
	q.After = history.Place{Time: q.Start + 5, Boot: 1 << 63, Seq: 7}
	if diff := cmp.Diff(q, later); err != nil || diff != "" {
		t.Errorf("an hour later: %v (-want +got):\n%s", err, diff)
	}
}

// TestHistoryErrors: each mistake has its code and names its field.
func TestHistoryErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 90))
	page := asked(1, 100)
	page.PageSize = 1
	got, err := w.twins.GetHistory(t.Context(), page)
	if err != nil {
		t.Fatal(err)
	}
	token := got.GetNextPageToken()
	with := func(change func(*doppelv1.GetHistoryRequest)) *doppelv1.GetHistoryRequest {
		req := asked(1, 100)
		change(req)
		return req
	}
	for name, test := range map[string]struct {
		req   *doppelv1.GetHistoryRequest
		code  codes.Code
		field string
	}{
		"no id":                 {with(func(r *doppelv1.GetHistoryRequest) { r.Id = "" }), codes.InvalidArgument, "id"},
		"no device id":          {with(func(r *doppelv1.GetHistoryRequest) { r.Id = "a b" }), codes.InvalidArgument, "id"},
		"nobody":                {with(func(r *doppelv1.GetHistoryRequest) { r.Id = "nobody" }), codes.NotFound, ""},
		"no metric":             {with(func(r *doppelv1.GetHistoryRequest) { r.Metric = "" }), codes.InvalidArgument, "metric"},
		"no name":               {with(func(r *doppelv1.GetHistoryRequest) { r.Metric = "a' or 1=1 --" }), codes.InvalidArgument, "metric"},
		"backwards":             {asked(5, 4), codes.InvalidArgument, "start"},
		"empty":                 {asked(5, 5), codes.InvalidArgument, "start"},
		"to come":               {with(func(r *doppelv1.GetHistoryRequest) { r.Start, r.End = timestamppb.New(time.Now().Add(time.Hour)), nil }), codes.InvalidArgument, "start"},
		"no start":              {with(func(r *doppelv1.GetHistoryRequest) { r.Start = &timestamppb.Timestamp{Nanos: -1} }), codes.InvalidArgument, "start"},
		"before 1970":           {with(func(r *doppelv1.GetHistoryRequest) { r.Start = &timestamppb.Timestamp{Seconds: -1} }), codes.InvalidArgument, "start"},
		"no end":                {with(func(r *doppelv1.GetHistoryRequest) { r.End = &timestamppb.Timestamp{Nanos: -1} }), codes.InvalidArgument, "end"},
		"behind 2262":           {with(func(r *doppelv1.GetHistoryRequest) { r.End = &timestamppb.Timestamp{Seconds: 1e10} }), codes.InvalidArgument, "end"},
		"no interval":           {with(func(r *doppelv1.GetHistoryRequest) { r.Interval = &durationpb.Duration{Nanos: 2e9} }), codes.InvalidArgument, "interval"},
		"interval of 0":         {with(func(r *doppelv1.GetHistoryRequest) { r.Interval = &durationpb.Duration{} }), codes.InvalidArgument, "interval"},
		"interval backward":     {with(func(r *doppelv1.GetHistoryRequest) { r.Interval = durationpb.New(-time.Second) }), codes.InvalidArgument, "interval"},
		"page of -1":            {with(func(r *doppelv1.GetHistoryRequest) { r.PageSize = -1 }), codes.InvalidArgument, "page_size"},
		"no token":              {with(func(r *doppelv1.GetHistoryRequest) { r.PageToken = "x" }), codes.InvalidArgument, "page_token"},
		"token of a list":       {with(func(r *doppelv1.GetHistoryRequest) { r.PageToken = sealToken(tokenPage, nil) }), codes.InvalidArgument, "page_token"},
		"token, other end":      {with(func(r *doppelv1.GetHistoryRequest) { r.PageToken, r.End = token, seconds(50) }), codes.InvalidArgument, "page_token"},
		"token, other interval": {with(func(r *doppelv1.GetHistoryRequest) { r.PageToken, r.Interval = token, durationpb.New(time.Second) }), codes.InvalidArgument, "page_token"},
		"short token": {with(func(r *doppelv1.GetHistoryRequest) {
			b, err := openToken("page_token", tokenHistory, token)
			if err != nil {
				t.Fatal(err)
			}
			r.PageToken = sealToken(tokenHistory, b[:len(b)-1])
		}), codes.InvalidArgument, "page_token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.twins.GetHistory(t.Context(), test.req)
			wantCode(t, err, test.code, test.field)
		})
	}
	for _, test := range []struct {
		err  error
		code codes.Code
		wait bool
	}{
		{host.ErrUnavailable, codes.Unavailable, true},
		{fmt.Errorf("p3: %w", history.ErrBehind), codes.Unavailable, true},
		{fmt.Errorf("p3: %w", history.ErrTooMuch), codes.ResourceExhausted, false},
		{errors.New("disk on fire"), codes.Internal, false},
	} {
		w.Fail(test.err)
		_, err := w.twins.GetHistory(t.Context(), asked(1, 2))
		wantCode(t, err, test.code, "")
		waits := false
		for _, d := range status.Convert(err).Details() {
			_, retry := d.(*errdetails.RetryInfo)
			waits = waits || retry
		}
		if waits != test.wait {
			t.Errorf("%v: told to wait: %t", test.err, waits)
		}
	}
	w.Fail(nil)
	w.Block()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = w.twins.GetHistory(ctx, asked(1, 2))
	wantCode(t, err, codes.DeadlineExceeded, "")
	ctx, cancel = context.WithCancel(t.Context())
	go cancel()
	_, err = w.twins.GetHistory(ctx, asked(1, 2))
	wantCode(t, err, codes.Canceled, "")
}

// Whatever stands in a token, it is refused or means a place in a span.
func FuzzHistoryToken(f *testing.F) {
	req := asked(1, 100)
	q := history.Query{Start: 1, End: 100}
	own, err := openToken("page_token", tokenHistory, historyToken(req, &q, history.Place{Time: 50, Boot: 1 << 62, Seq: 7}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add(own[:8])
	f.Fuzz(func(t *testing.T, content []byte) {
		copy(content, own[:8]) // so that it belongs to the request
		req := asked(1, 100)
		req.PageToken = sealToken(tokenHistory, content)
		got, err := historyQuery(req, apitest.Epoch())
		if err == nil && (got.Start <= 0 || got.After.Time < got.Start || got.After.Time >= got.End) {
			t.Errorf("token means %+v", got)
		}
	})
}
