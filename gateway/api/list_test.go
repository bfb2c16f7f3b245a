package api

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// listAll walks the pages of a list and calls between after each.
func listAll(t *testing.T, w *world, req *doppelv1.ListTwinsRequest, between func(page int)) []string {
	t.Helper()
	var ids []string
	for page := 0; ; page++ {
		resp, err := w.twins.ListTwins(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, tw := range resp.GetTwins() {
			ids = append(ids, tw.GetId())
		}
		if between != nil {
			between(page)
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return ids
		}
		if len(resp.GetTwins()) != int(req.GetPageSize()) {
			t.Fatalf("page %d has %d twins and a next one", page, len(resp.GetTwins()))
		}
	}
}

func TestListTwinsOrders(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 50 {
		tw := apitest.Twin(fmt.Sprintf("d%02d", i), i)
		tw.Boot = uint64(i % 4)
		if i == 49 {
			delete(tw.GetMetrics(), "temperature")
			tw.LastSeen = nil
		}
		w.Put(tw)
	}
	num := func(from, to, step int) (ids []string) {
		for i := from; i != to; i += step {
			ids = append(ids, fmt.Sprintf("d%02d", i))
		}
		return ids
	}
	byBoot := num(0, 50, 1)
	slices.SortStableFunc(byBoot, func(a, b string) int {
		var x, y int
		fmt.Sscanf(a, "d%d", &x)
		fmt.Sscanf(b, "d%d", &y)
		if x%4 != y%4 {
			return y%4 - x%4
		}
		return y - x
	})
	for orderBy, want := range map[string][]string{
		"":                                   num(0, 50, 1),
		"id desc":                            num(49, -1, -1),
		"last_seen":                          num(0, 50, 1), // absent comes last, here and in descending order
		"lastSeen desc":                      append(num(48, -1, -1), "d49"),
		"seq desc":                           num(49, -1, -1),
		"create_time, version desc":          num(49, -1, -1),
		"boot desc,seq desc":                 byBoot,
		`metrics["temperature"].value`:       num(0, 50, 1),
		"metrics.temperature.value desc":     append(num(48, -1, -1), "d49"),
		"tags.site, counters.applied   desc": num(49, -1, -1),
	} {
		for _, size := range []int32{7, 25, 50} {
			got := listAll(t, w, &doppelv1.ListTwinsRequest{OrderBy: orderBy, PageSize: size}, nil)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("order %q, pages of %d (-want +got)\n%s", orderBy, size, diff)
				break
			}
		}
	}
}

// Whatever comes and goes between the pages: each twin that stays is listed once, in order.
func TestPagesAreStableUnderChange(t *testing.T) {
	w := newWorld(t, HubConfig{})
	rng := rand.New(rand.NewPCG(1, 2))
	stay := map[string]bool{}
	for i := range 300 {
		id := fmt.Sprintf("stay%03d", i)
		stay[id] = true
		w.Put(apitest.Twin(id, rng.IntN(1000)))
	}
	n := 0
	got := listAll(t, w, &doppelv1.ListTwinsRequest{OrderBy: "version desc", PageSize: 20}, func(int) {
		for range 30 {
			w.Put(apitest.Twin(fmt.Sprintf("go%05d", n), rng.IntN(1000)))
			n++
		}
		for i := n - 45; i < n-20; i++ {
			w.Remove(fmt.Sprintf("go%05d", max(i, 0)))
		}
	})
	seen := map[string]int{}
	for _, id := range got {
		seen[id]++
	}
	for id := range stay {
		if seen[id] != 1 {
			t.Errorf("%s listed %d times, want once", id, seen[id])
		}
	}
}

func TestListTwinsFilterMaskTotal(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 250 {
		w.Put(apitest.Twin(fmt.Sprintf("d%03d", i), i))
	}
	resp, err := w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{
		Filter: `online && metrics["temperature"].value >= 200`, PageSize: 2, ReadMask: maskOf("id", "online"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetTotalSize() != 25 || resp.GetNextPageToken() == "" {
		t.Errorf("got total %d, token %q; want 25 and a token", resp.GetTotalSize(), resp.GetNextPageToken())
	}
	want := []*doppelv1.Twin{{Id: "d200", Online: true}, {Id: "d202", Online: true}}
	if diff := cmp.Diff(want, resp.GetTwins(), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	resp, err = w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{})
	if err != nil || len(resp.GetTwins()) != 100 {
		t.Errorf("default page: got %d twins, %v; want 100", len(resp.GetTwins()), err)
	}
	resp, err = w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{PageSize: 1 << 30})
	if err != nil || len(resp.GetTwins()) != 250 {
		t.Errorf("largest page: got %d twins, %v; want 250", len(resp.GetTwins()), err)
	}
}

func TestListTwinsErrors(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 5 {
		w.Put(apitest.Twin(fmt.Sprintf("d%d", i), i))
	}
	first, err := w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	token := first.GetNextPageToken()
	mangled := []byte(token)
	mangled[3] ^= 1
	for name, tc := range map[string]struct {
		req   *doppelv1.ListTwinsRequest
		field string
	}{
		"filter":            {&doppelv1.ListTwinsRequest{Filter: "nope"}, "filter"},
		"order":             {&doppelv1.ListTwinsRequest{OrderBy: "nope"}, "order_by"},
		"order direction":   {&doppelv1.ListTwinsRequest{OrderBy: "id down"}, "order_by"},
		"order by message":  {&doppelv1.ListTwinsRequest{OrderBy: "counters"}, "order_by"},
		"order by map":      {&doppelv1.ListTwinsRequest{OrderBy: "metrics"}, "order_by"},
		"order by metric":   {&doppelv1.ListTwinsRequest{OrderBy: "metrics.temperature"}, "order_by"},
		"order by list":     {&doppelv1.ListTwinsRequest{OrderBy: "open_alerts"}, "order_by"},
		"order by struct":   {&doppelv1.ListTwinsRequest{OrderBy: "reported.firmware"}, "order_by"},
		"order by nothing":  {&doppelv1.ListTwinsRequest{OrderBy: "id,,seq"}, "order_by"},
		"mask":              {&doppelv1.ListTwinsRequest{ReadMask: maskOf("nope")}, "read_mask"},
		"page size":         {&doppelv1.ListTwinsRequest{PageSize: -1}, "page_size"},
		"token garbage":     {&doppelv1.ListTwinsRequest{PageToken: "§"}, "page_token"},
		"token mangled":     {&doppelv1.ListTwinsRequest{PageToken: string(mangled)}, "page_token"},
		"token cut":         {&doppelv1.ListTwinsRequest{PageToken: token[:8]}, "page_token"},
		"token of filter":   {&doppelv1.ListTwinsRequest{PageToken: token, Filter: "online"}, "page_token"},
		"token of order":    {&doppelv1.ListTwinsRequest{PageToken: token, OrderBy: "seq"}, "page_token"},
		"token of a watch":  {&doppelv1.ListTwinsRequest{PageToken: twinsPlace{1, 2, false}.token()}, "page_token"},
		"token of too much": {&doppelv1.ListTwinsRequest{PageToken: string(make([]byte, maxToken+1))}, "page_token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.twins.ListTwins(t.Context(), tc.req)
			wantCode(t, err, codes.InvalidArgument, tc.field)
		})
	}
	// The page size is not part of the token.
	if _, err := w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{PageToken: token, PageSize: 3}); err != nil {
		t.Error(err)
	}
	heavy := `[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > version - 1000))))`
	_, err = w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{Filter: heavy})
	wantCode(t, err, codes.ResourceExhausted, "")
}

func TestListAlerts(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Transition(1, "pump-1", alert.Warning, alert.Firing)
	w.Transition(2, "fan-1", alert.Critical, alert.Firing)
	w.Transition(3, "pump-2", alert.Warning, alert.Resolved)
	w.Transition(4, "pump-3", alert.Info, alert.Pending)
	for filter, want := range map[string][]string{
		"": {"pump-3", "pump-2", "fan-1", "pump-1"}, // newest first
		`state == "FIRING" && device.startsWith("pump-")`: {"pump-1"},
		`severity == "CRITICAL"`:                          {"fan-1"},
		`score > 100`:                                     nil,
	} {
		var got []string
		req := &doppelv1.ListAlertsRequest{Filter: filter, PageSize: 1}
		for {
			resp, err := w.alerts.ListAlerts(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range resp.GetAlerts() {
				got = append(got, a.GetDevice())
			}
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", filter, diff)
		}
	}
	resp, err := w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{OrderBy: "severity desc, device"})
	if err != nil || len(resp.GetAlerts()) != 4 || resp.GetAlerts()[0].GetDevice() != "fan-1" || resp.GetAlerts()[3].GetDevice() != "pump-3" {
		t.Errorf("by severity: got %v, %v", resp.GetAlerts(), err)
	}
	_, err = w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{Filter: "online"})
	wantCode(t, err, codes.InvalidArgument, "filter")
	_, err = w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{OrderBy: "last_seen"})
	wantCode(t, err, codes.InvalidArgument, "order_by")
	_, err = w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{PageSize: -1})
	wantCode(t, err, codes.InvalidArgument, "page_size")
	_, err = w.alerts.ListAlerts(t.Context(), &doppelv1.ListAlertsRequest{PageToken: "x"})
	wantCode(t, err, codes.InvalidArgument, "page_token")
}

func TestGetAlert(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Transition(0xabc, "pump-1", alert.Warning, alert.Firing)
	got, err := w.alerts.GetAlert(t.Context(), &doppelv1.GetAlertRequest{Id: "0000000000000abc"})
	if err != nil || got.GetDevice() != "pump-1" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = w.alerts.GetAlert(t.Context(), &doppelv1.GetAlertRequest{Id: "0000000000000abd"})
	wantCode(t, err, codes.NotFound, "")
	for _, id := range []string{"", "abc", "0000000000000ABC", "0000000000000abg"} {
		_, err = w.alerts.GetAlert(t.Context(), &doppelv1.GetAlertRequest{Id: id})
		wantCode(t, err, codes.InvalidArgument, "id")
	}
}

func TestFleetAndRules(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	fleet := doppelv1.NewFleetServiceClient(w.conn)
	st, err := fleet.GetStatus(t.Context(), &doppelv1.GetStatusRequest{})
	if err != nil || st.GetTwins() != 1 {
		t.Errorf("got %v, %v; want 1 twin", st, err)
	}
	audit, err := fleet.GetAudit(t.Context(), &doppelv1.GetAuditRequest{})
	if err != nil || !audit.GetBalanced() {
		t.Errorf("got %v, %v; want balanced", audit, err)
	}
	rules, err := doppelv1.NewRuleServiceClient(w.conn).ListRules(t.Context(), &doppelv1.ListRulesRequest{PageSize: 1})
	if err != nil || len(rules.GetRules()) != 1 || rules.GetRules()[0].GetId() != "builtin.offline" || rules.GetNextPageToken() == "" {
		t.Errorf("got %v, %v; want builtin.offline and a token", rules, err)
	}
}
