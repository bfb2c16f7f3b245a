package query_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/query"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// devices gives n devices a sample each, and returns their ids in order.
func (w *world) devices(n int) []string {
	w.t.Helper()
	var ids []string
	for i := range n {
		id := fmt.Sprintf("dev-%02d", i)
		w.sample(id, 1)
		ids = append(ids, id)
	}
	return ids
}

func idsOf(twins []*doppelv1.Twin) []string {
	var ids []string
	for _, t := range twins {
		ids = append(ids, t.GetId())
	}
	slices.Sort(ids)
	return ids
}

// TestAnyNodeAnswers: what is asked of one node is the same as what is asked of another, and all of it.
func TestAnyNodeAnswers(t *testing.T) {
	w := newWorld(t, 3, nil)
	ids := w.devices(40)
	w.send("dev-07", host.Status, `{"online":true,"boot":1,"session":1}`)
	w.send("dev-07", host.Status, `{"online":false,"boot":1,"session":1}`)
	var alert *doppelv1.Alert
	for _, n := range w.nodes {
		ctx := t.Context()
		twins, err := n.reader.Twins(ctx, append([]string{"nobody", "dev-00"}, ids[1:]...))
		if diff := cmp.Diff(ids, idsOf(twins)); diff != "" || err != nil {
			t.Errorf("%s: twins by id: %v (-want +got)\n%s", n.id, err, diff)
		}
		var all []*doppelv1.Twin
		err = n.reader.EachTwin(ctx, filter.Filter{}, func(tw *doppelv1.Twin) bool { all = append(all, tw); return true })
		if diff := cmp.Diff(ids, idsOf(all)); diff != "" || err != nil {
			t.Errorf("%s: all twins: %v (-want +got)\n%s", n.id, err, diff)
		}
		some := 0
		if err := n.reader.EachTwin(ctx, filter.Filter{}, func(*doppelv1.Twin) bool { some++; return some < 3 }); err != nil || some != 3 {
			t.Errorf("%s: a walk that is ended has %d twins, %v; want 3", n.id, some, err)
		}
		for _, id := range ids {
			tw, err := n.reader.Twin(ctx, id)
			if err != nil || tw.GetOwner() != w.owner(id).id || tw.GetCounters().GetApplied() != 1 {
				t.Fatalf("%s: twin %s: %v, %v", n.id, id, tw, err)
			}
		}
		if _, err := n.reader.Twin(ctx, "nobody"); !errors.Is(err, host.ErrUnknownDevice) {
			t.Errorf("%s: nobody: %v", n.id, err)
		}
		alerts, err := n.reader.Alerts(ctx)
		if err != nil || len(alerts) != 1 || alerts[0].GetDevice() != "dev-07" || alert != nil && alerts[0].GetId() != alert.GetId() {
			t.Fatalf("%s: alerts: %v, %v", n.id, alerts, err)
		}
		alert = alerts[0]
		if a, err := n.reader.Alert(ctx, alert.GetId()); err != nil || a.GetDevice() != "dev-07" {
			t.Errorf("%s: alert: %v, %v", n.id, a, err)
		}
		if _, err := n.reader.Alert(ctx, "00000000000000aa"); !errors.Is(err, host.ErrUnknownAlert) {
			t.Errorf("%s: no alert: %v", n.id, err)
		}
		for _, id := range ids[:8] {
			if r, err := n.reader.Replay(ctx, id); err != nil || !r.Equal || r.Version == 0 || r.Inputs == 0 || r.Start.Kind != "creation" {
				t.Errorf("%s: replay of %s: %+v, %v", n.id, id, r, err)
			}
			if tw, err := n.reader.TwinAsOf(ctx, id, host.AsOf{Version: 1}); err != nil || tw.GetId() != id || tw.GetVersion() != 1 {
				t.Errorf("%s: %s as it was: %v, %v", n.id, id, tw, err)
			}
			if _, err := n.reader.TwinAsOf(ctx, id, host.AsOf{Version: 99}); !errors.Is(err, host.ErrFuture) {
				t.Errorf("%s: %s as it will be: %v", n.id, id, err)
			}
			if _, err := n.reader.TwinAsOf(ctx, id, host.AsOf{Time: 1}); !errors.Is(err, host.ErrUnknownDevice) && !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("%s: %s before it was: %v", n.id, id, err)
			}
		}
		if err := n.reader.Reset(ctx, ids[n.index]); err != nil {
			t.Errorf("%s: reset: %v", n.id, err)
		}
		if err := n.reader.Reset(ctx, "nobody-"+n.id); !errors.Is(err, host.ErrUnknownDevice) {
			t.Errorf("%s: reset of nobody: %v", n.id, err)
		}
	}
}

// TestPagesWhilePartitionsMove: a list of pages has every twin once, whatever moves between them.
func TestPagesWhilePartitionsMove(t *testing.T) {
	w := newWorld(t, 3, nil)
	ids := w.devices(40)
	for _, order := range []string{"", "id desc", "seq desc"} {
		var got []string
		token := ""
		for page := 0; page == 0 || token != ""; page++ {
			n := w.nodes[page%len(w.nodes)] // a token is good at any node
			resp, err := n.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{OrderBy: order, PageSize: 7, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if resp.GetTotalSize() != int64(len(ids)) {
				t.Errorf("page %d: %d twins in all, want %d", page, resp.GetTotalSize(), len(ids))
			}
			for _, tw := range resp.GetTwins() {
				got = append(got, tw.GetId())
			}
			token = resp.GetNextPageToken()
			p := int32(page % partitions)
			w.move(p, (page+1)%len(w.nodes))
		}
		slices.Sort(got)
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("order %q (-want +got)\n%s", order, diff)
		}
	}
}

// TestScanGoesOnElsewhere: a walk over a partition that moves meanwhile goes on behind the last twin it
// has seen, or says that it cannot; it never has a twin twice.
func TestScanGoesOnElsewhere(t *testing.T) {
	w := newWorld(t, 3, nil)
	var ids []string
	for i := range 700 { // some chunks of a partition
		id := fmt.Sprintf("many-%04d", i)
		w.sample(id, 1)
		ids = append(ids, id)
	}
	finished := 0
	for round := range 6 {
		moved := false
		seen := make(map[string]int)
		err := w.nodes[0].reader.EachTwin(t.Context(), filter.Filter{}, func(tw *doppelv1.Twin) bool {
			seen[tw.GetId()]++
			if !moved && len(seen) == 100 {
				moved = true
				for p := range int32(partitions) {
					w.move(p, (int(p)+round+1)%3)
				}
			}
			return true
		})
		switch {
		case err == nil:
			finished++
			if len(seen) != len(ids) {
				t.Errorf("round %d: %d twins, want %d", round, len(seen), len(ids))
			}
		case !errors.Is(err, host.ErrUnavailable):
			t.Errorf("round %d: %v", round, err)
		}
		for id, n := range seen {
			if n > 1 {
				t.Errorf("round %d: %s came %d times", round, id, n)
			}
		}
	}
	if finished == 0 {
		t.Error("no walk was finished: nothing was gone on with")
	}
}

// TestRouteThatIsOld: a node that learns from the answer that a partition has moved asks its new owner.
func TestRouteThatIsOld(t *testing.T) {
	w := newWorld(t, 3, nil)
	id := w.on(w.nodes[1], "moves")
	w.sample(id, 1)
	asked := 0
	cfg := w.nodes[0].config()
	route := cfg.Route
	cfg.Route = func(p int32) query.Route {
		if asked++; asked == 1 {
			return query.Route{Address: w.nodes[2].address} // it serves something else
		}
		return route(p)
	}
	if tw, err := query.New(cfg).Twin(t.Context(), id); err != nil || tw.GetOwner() != "n1" {
		t.Errorf("twin: %v, %v", tw, err)
	}
	if asked != 2 {
		t.Errorf("the route was asked for %d times, want 2", asked)
	}
	cfg.Route = func(int32) query.Route { return query.Route{Address: w.nodes[2].address} }
	if _, err := query.New(cfg).Twin(t.Context(), id); !errors.Is(err, host.ErrUnavailable) {
		t.Errorf("a route that stays wrong: %v", err)
	}
}

// TestDeadNode: questions about partitions of a node that is away, or silent, or of nobody, are
// UNAVAILABLE soon, and say which; those about others are answered.
func TestDeadNode(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := newWorld(t, 3, nil)
	w.devices(20)
	theirs, ours := w.on(w.nodes[1], "theirs"), w.on(w.nodes[0], "ours")
	w.sample(theirs, 1)
	w.sample(ours, 1)
	dead := w.nodes[1]
	for name, kill := range map[string]func(){
		"silent": func() { w.readdress(dead, silent.Addr().String()) },
		"away":   func() { w.readdress(dead, "127.0.0.1:1") },
		"nobody": func() { w.readdress(dead, "") },
	} {
		t.Run(name, func(t *testing.T) {
			before := dead.address
			kill()
			defer w.readdress(dead, before)
			n := w.nodes[0]
			for what, ask := range map[string]func(ctx context.Context) error{
				"get": func(ctx context.Context) error {
					_, err := n.twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: theirs})
					return err
				},
				"batch": func(ctx context.Context) error {
					_, err := n.twins.BatchGetTwins(ctx, &doppelv1.BatchGetTwinsRequest{Ids: []string{ours, theirs}})
					return err
				},
				"list": func(ctx context.Context) error {
					_, err := n.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{})
					return err
				},
				"alerts": func(ctx context.Context) error {
					_, err := n.alerts.ListAlerts(ctx, &doppelv1.ListAlertsRequest{})
					return err
				},
				"alert": func(ctx context.Context) error {
					_, err := n.alerts.GetAlert(ctx, &doppelv1.GetAlertRequest{Id: "00000000000000aa"})
					return err
				},
			} {
				start := time.Now()
				err := ask(t.Context())
				if d := time.Since(start); d > patience+2*time.Second {
					t.Errorf("%s took %v", what, d)
				}
				st := status.Convert(err)
				if st.Code() != codes.Unavailable || !strings.Contains(st.Message(), "partition") {
					t.Errorf("%s: %v, want UNAVAILABLE that names a partition", what, err)
				}
				if !slices.ContainsFunc(st.Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok }) {
					t.Errorf("%s: no RetryInfo in %v", what, st.Details())
				}
			}
			if _, err := n.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: ours}); err != nil {
				t.Errorf("a twin of another node: %v", err)
			}
			twins, err := n.reader.Twins(t.Context(), []string{ours, theirs})
			if !errors.Is(err, host.ErrUnavailable) || len(twins) != 1 || twins[0].GetId() != ours {
				t.Errorf("of two twins: %v, %v; want the one that can be read, and the error", twins, err)
			}
		})
	}
}

func (w *world) readdress(n *node, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.address = address
}
