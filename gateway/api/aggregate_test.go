package api

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestAggregateTwins(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 300 {
		w.Put(apitest.Twin(fmt.Sprintf("d%03d", i), i))
	}
	w.Put(&doppelv1.Twin{Id: "bare"})
	resp, err := w.twins.AggregateTwins(t.Context(), &doppelv1.AggregateTwinsRequest{
		GroupBy: "tags.line", Metrics: []string{"temperature", "nosuch"}, Quantiles: []float64{0, 0.25, 0.5, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetTotalSize() != 301 || len(resp.GetGroups()) != 4 || resp.GetMoreGroups() != 0 {
		t.Fatalf("got %v", resp)
	}
	for i, want := range []string{"0", "1", "2", ""} { // of equals in order of value
		g := resp.GetGroups()[i]
		if g.GetValue() != want {
			t.Errorf("group %d is of %q, want %q", i, g.GetValue(), want)
		}
		if want == "" {
			if g.GetCount() != 1 || len(g.GetMetrics()) != 0 {
				t.Errorf("twins without the tag: %v", g)
			}
			continue
		}
		m := g.GetMetrics()["temperature"]
		if g.GetCount() != 100 || m.GetCount() != 100 || m.GetMin() != float64(i) || m.GetMax() != float64(297+i) || math.Abs(m.GetMean()-float64(i)-148.5) > 1e-9 {
			t.Errorf("group %q: %v", want, g)
		}
		for q, exact := range []float64{float64(i), float64(72 + i), float64(147 + i), float64(297 + i)} {
			if got := m.GetQuantiles()[q]; math.Abs(got-exact) > 0.01*exact+1e-9 {
				t.Errorf("group %q: quantile %d is %v, want %v within 1 %%", want, q, got, exact)
			}
		}
	}
	resp, err = w.twins.AggregateTwins(t.Context(), &doppelv1.AggregateTwinsRequest{Filter: "online", GroupBy: `tags["line"]`, PageSize: 1})
	if err != nil || resp.GetTotalSize() != 150 || len(resp.GetGroups()) != 1 || resp.GetMoreGroups() != 2 {
		t.Errorf("got %v, %v; want one group of three, 150 twins in all", resp, err)
	}
	resp, err = w.twins.AggregateTwins(t.Context(), &doppelv1.AggregateTwinsRequest{})
	if err != nil || len(resp.GetGroups()) != 1 || resp.GetGroups()[0].GetCount() != 301 {
		t.Errorf("got %v, %v; want one group of all", resp, err)
	}
}

func TestAggregateTwinsErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for name, tc := range map[string]struct {
		req   *doppelv1.AggregateTwinsRequest
		field string
	}{
		"filter":         {&doppelv1.AggregateTwinsRequest{Filter: "nope"}, "filter"},
		"group":          {&doppelv1.AggregateTwinsRequest{GroupBy: "nope"}, "group_by"},
		"group of tags":  {&doppelv1.AggregateTwinsRequest{GroupBy: "tags"}, "group_by"},
		"group of a tag": {&doppelv1.AggregateTwinsRequest{GroupBy: "tags."}, "group_by"},
		"half a tag":     {&doppelv1.AggregateTwinsRequest{GroupBy: `tags["a`}, "group_by"},
		"no metric":      {&doppelv1.AggregateTwinsRequest{Metrics: []string{""}}, "metrics"},
		"many metrics":   {&doppelv1.AggregateTwinsRequest{Metrics: slices.Repeat([]string{"a"}, 17)}, "metrics"},
		"quantile":       {&doppelv1.AggregateTwinsRequest{Quantiles: []float64{1.5}}, "quantiles"},
		"no quantile":    {&doppelv1.AggregateTwinsRequest{Quantiles: []float64{math.NaN()}}, "quantiles"},
		"many quantiles": {&doppelv1.AggregateTwinsRequest{Quantiles: make([]float64, 17)}, "quantiles"},
		"page size":      {&doppelv1.AggregateTwinsRequest{PageSize: -1}, "page_size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.twins.AggregateTwins(t.Context(), tc.req)
			wantCode(t, err, codes.InvalidArgument, tc.field)
		})
	}
}

// TestListsThatEnd: lists and aggregates of a fleet that moves, or that does not answer in the caller's time.
func TestListsThatEnd(t *testing.T) {
	w := newWorld(t, HubConfig{})
	calls := map[string]func(ctx context.Context) error{
		"list": func(ctx context.Context) error {
			_, err := w.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{})
			return err
		},
		"aggregate": func(ctx context.Context) error {
			_, err := w.twins.AggregateTwins(ctx, &doppelv1.AggregateTwinsRequest{})
			return err
		},
		"batch": func(ctx context.Context) error {
			_, err := w.twins.BatchGetTwins(ctx, &doppelv1.BatchGetTwinsRequest{Ids: []string{"a"}})
			return err
		},
		"alerts": func(ctx context.Context) error {
			_, err := w.alerts.ListAlerts(ctx, &doppelv1.ListAlertsRequest{})
			return err
		},
	}
	w.Fail(fmt.Errorf("partition 3: %w", host.ErrUnavailable))
	for name, call := range calls {
		err := call(t.Context())
		wantCode(t, err, codes.Unavailable, "")
		if retryDelay(err) <= 0 {
			t.Errorf("%s: no RetryInfo", name)
		}
	}
	w.Fail(nil)
	w.Block()
	for _, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		wantCode(t, call(ctx), codes.DeadlineExceeded, "")
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		wantCode(t, call(ctx), codes.Canceled, "")
	}
}

func retryDelay(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
