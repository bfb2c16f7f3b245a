package query_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func compiled(t *testing.T, text string) filter.Filter {
	t.Helper()
	env, err := filter.NewEnv(&doppelv1.Twin{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := env.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestSelectAnywhere: every node gives the same pages, of twins of all nodes.
func TestSelectAnywhere(t *testing.T) {
	w := newWorld(t, 3, nil)
	ids := w.devices(40)
	o, err := selection.ParseOrder("id desc", &doppelv1.Twin{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		q := &host.Query{Filter: compiled(t, `counters.applied == 1 && id != "dev-11"`), Order: o, Limit: 9}
		var got []string
		for {
			s, err := n.reader.SelectTwins(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if s.Count != 39 || len(s.Keys) != len(s.Twins) {
				t.Fatalf("%s: count %d, want 39; %d keys of %d twins", n.id, s.Count, len(s.Keys), len(s.Twins))
			}
			for i, tw := range s.Twins {
				if tw.GetId() != s.Keys[i].ID() || tw.GetOwner() != w.owner(tw.GetId()).id {
					t.Fatalf("%s: twin %v at the place of %s", n.id, tw, s.Keys[i].ID())
				}
				got = append(got, tw.GetId())
			}
			if !s.More {
				break
			}
			q.After = &s.Keys[len(s.Keys)-1]
		}
		var want []string
		for _, id := range slices.Backward(ids) {
			if id != "dev-11" {
				want = append(want, id)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", n.id, diff)
		}
		var all []string
		err := n.reader.EachTwin(t.Context(), compiled(t, `id < "dev-05"`), func(tw *doppelv1.Twin) bool { all = append(all, tw.GetId()); return true })
		if err != nil || len(all) != 5 {
			t.Errorf("%s: filtered walk %v, %v", n.id, all, err)
		}
	}
}

// TestAggregateAnywhere: every node counts all twins of all nodes, once.
func TestAggregateAnywhere(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.devices(40)
	want := map[string]int64{}
	for i := range 40 {
		want[w.owner(fmt.Sprintf("dev-%02d", i)).id]++
	}
	var first *doppelv1.AggregateTwinsResponse
	for _, n := range w.nodes {
		resp, err := n.reader.AggregateTwins(t.Context(), filter.Filter{}, &doppelv1.AggregateTwinsRequest{GroupBy: "owner"})
		if err != nil || resp.GetTotalSize() != 40 {
			t.Fatalf("%s: %v, %v", n.id, resp, err)
		}
		got := map[string]int64{}
		for _, g := range resp.GetGroups() {
			got[g.GetValue()] += g.GetCount()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", n.id, diff)
		}
		req := &doppelv1.AggregateTwinsRequest{Filter: `id < "dev-30"`, Metrics: []string{"x", "temperature"}, GroupBy: "online"}
		resp, err = n.reader.AggregateTwins(t.Context(), compiled(t, req.GetFilter()), req)
		if err != nil || resp.GetTotalSize() != 30 || len(resp.GetGroups()) != 1 || len(resp.GetGroups()[0].GetMetrics()) != 1 {
			t.Fatalf("%s: %v, %v", n.id, resp, err)
		}
		if first == nil {
			first = resp
		}
		if diff := cmp.Diff(first, resp, protocmp.Transform()); diff != "" {
			t.Errorf("%s counts otherwise (-first +it)\n%s", n.id, diff)
		}
	}
}

// TestSelectFails: what cannot be asked is said, and nothing is left out in silence.
func TestSelectFails(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.devices(8)
	n := w.nodes[0]
	costly := compiled(t, `[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > 0))))`)
	if _, err := n.reader.SelectTwins(t.Context(), &host.Query{Filter: costly, Limit: 1}); !errors.Is(err, filter.ErrCost) {
		t.Errorf("a filter that costs too much: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.reader.SelectTwins(ctx, &host.Query{Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	late, end := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer end()
	if _, err := n.reader.AggregateTwins(late, filter.Filter{}, &doppelv1.AggregateTwinsRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("too late: %v", err)
	}
	if err := w.owner("dev-00").host.Release(t.Context(), placement.Partition([]byte("dev-00"), partitions)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.reader.SelectTwins(t.Context(), &host.Query{Limit: 1}); !errors.Is(err, host.ErrUnavailable) {
		t.Errorf("nobody serves a partition: %v", err)
	}
	if _, err := n.reader.AggregateTwins(t.Context(), filter.Filter{}, &doppelv1.AggregateTwinsRequest{}); !errors.Is(err, host.ErrUnavailable) {
		t.Errorf("nobody serves a partition: %v", err)
	}

	conn, err := grpc.NewClient(n.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := doppelv1.NewQueryServiceClient(conn)
	for name, req := range map[string]*doppelv1.SelectTwinsRequest{
		"filter":    {Filter: "nonsense", Limit: 1},
		"order":     {OrderBy: "nonsense", Limit: 1},
		"place":     {After: []byte{9}, Limit: 1},
		"limit":     {},
		"partition": {Partitions: []int32{99}, Limit: 1},
	} {
		s, err := c.SelectTwins(t.Context(), req)
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, req := range map[string]*doppelv1.SummarizeTwinsRequest{
		"filter":    {Aggregate: &doppelv1.AggregateTwinsRequest{Filter: "nonsense"}},
		"group":     {Aggregate: &doppelv1.AggregateTwinsRequest{GroupBy: "nonsense"}},
		"partition": {Partitions: []int32{-1}},
	} {
		s, err := c.SummarizeTwins(t.Context(), req)
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}
