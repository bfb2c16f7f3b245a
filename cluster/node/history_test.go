package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestHistory: what a device sent is in its history as soon as its twin shows it, from whichever source, after a
// restart too; a late sample stands where its time is, and a time nobody sent anything in is a gap.
func TestHistory(t *testing.T) {
	for name, config := range map[string]func(testing.TB) node.Config{"embedded": nodetest.Embedded, "real": nodetest.Real} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			n := nodetest.Start(t, cfg)
			source := "log"
			if cfg.QuestDB != "" {
				source = "questdb"
			}
			d := n.Device(nodetest.Unique("aa:bb"))
			begin := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
			at := func(seq int) time.Time { return begin.Add(time.Duration(seq) * 10 * time.Second) }
			send := func(seq int) {
				t.Helper()
				d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"salinity":%d.5,"Salinity":1}}`, seq, at(seq).UnixNano(), seq))
			}
			history := func(n *nodetest.Node, req *doppelv1.GetHistoryRequest) *doppelv1.GetHistoryResponse {
				t.Helper()
				req.Id, req.Metric = d.ID, "salinity"
				var got *doppelv1.GetHistoryResponse
				var err error
				nodetest.Poll(func() bool { // a restored partition says that it is not there yet
					got, err = n.Twins().GetHistory(t.Context(), req)
					return status.Code(err) != codes.Unavailable
				})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			for seq := 1; seq <= 40; seq++ {
				send(seq)
				n.Await(d.ID, "there", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == uint64(seq) })
				got := history(n, &doppelv1.GetHistoryRequest{})
				if len(got.GetPoints()) != seq || got.GetPoints()[seq-1].GetValue() != float64(seq)+0.5 {
					t.Fatalf("%d of %d samples, from %s", len(got.GetPoints()), seq, got.GetSource())
				}
				if z := got.GetPoints()[seq-1].Z; (z != nil) != (seq > 30) {
					t.Errorf("z of sample %d: %v", seq, z)
				}
			}
			if !nodetest.Poll(func() bool { return history(n, &doppelv1.GetHistoryRequest{}).GetSource() == source }) {
				t.Errorf("the answer does not come from %s", source)
			}
			send(60) // behind a gap
			n.Await(d.ID, "behind the gap", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 60 })
			send(55) // late
			n.Await(d.ID, "with a late sample", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetLate() == 1 })
			n.Stop()
			n = nodetest.Start(t, cfg)
			got := history(n, &doppelv1.GetHistoryRequest{Start: timestamppb.New(at(40)), End: timestamppb.New(at(60))})
			if p := got.GetPoints(); len(p) != 2 || p[0].GetSeq() != 40 || p[1].GetSeq() != 55 || p[1].Z != nil || !p[1].GetTime().AsTime().Equal(at(55)) {
				t.Errorf("from 40 to 60: %v", got)
			}
			got = history(n, &doppelv1.GetHistoryRequest{
				Start: timestamppb.New(at(1)), End: timestamppb.New(at(100)), Interval: durationpb.New(100 * time.Second),
			})
			var counts []uint64
			var times []int
			for _, p := range got.GetPoints() {
				counts, times = append(counts, p.GetCount()), append(times, int(p.GetTime().AsTime().Sub(at(1))/time.Second))
			}
			if fmt.Sprint(counts, times) != "[10 10 10 10 2] [0 100 200 300 500]" {
				t.Errorf("buckets: %v at %v", counts, times)
			}
			if p := got.GetPoints()[1]; p.GetMin() != 11.5 || p.GetMax() != 20.5 || p.GetMean() != 16 {
				t.Errorf("second bucket: %v", p)
			}
			asJSON(t, n, d.ID, at(1))

			// A twin that is deleted has no history; what was stored of it stays, and is there when it comes back.
			if _, err := n.Twins().DeleteTwin(t.Context(), &doppelv1.DeleteTwinRequest{Id: d.ID}); err != nil {
				t.Fatal(err)
			}
			if _, err := n.Twins().GetHistory(t.Context(), &doppelv1.GetHistoryRequest{Id: d.ID, Metric: "salinity"}); status.Code(err) != codes.NotFound {
				t.Errorf("history of a twin that was deleted: %v", err)
			}
			d = n.Device(d.ID)
			send(61)
			n.Await(d.ID, "back", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 61 })
			if got := history(n, &doppelv1.GetHistoryRequest{}); len(got.GetPoints()) != 43 {
				t.Errorf("%d samples of both its lives, want 43", len(got.GetPoints()))
			}
		})
	}
}

// asJSON asks for the same by HTTP, where an id has colons.
func asJSON(t *testing.T, n *nodetest.Node, id string, start time.Time) {
	t.Helper()
	get := func(query string, into any) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Addresses.HTTP+"/v1/twins/"+id+"/history?"+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return resp.StatusCode
	}
	var page struct {
		Points        []struct{ Count, Time string }
		NextPageToken string
	}
	query := "metric=salinity&interval=100s&pageSize=2&start=" + start.UTC().Format(time.RFC3339)
	if code := get(query, &page); code != http.StatusOK || len(page.Points) != 2 || page.Points[1].Count != "10" || page.NextPageToken == "" {
		t.Errorf("as JSON: %d, %+v", code, page)
	}
	var failure struct{ Message string }
	if code := get("metric=salinity&interval=-1s", &failure); code != http.StatusBadRequest {
		t.Errorf("wrong interval: %d, %+v", code, failure)
	}
	if code := get("", &failure); code != http.StatusBadRequest {
		t.Errorf("no metric: %d, %+v", code, failure)
	}
}

// TestAnyNodeKnowsHistory: a node that does not serve a device answers for it.
func TestAnyNodeKnowsHistory(t *testing.T) {
	cfg := nodetest.Real(t)
	other := nodetest.Real(t)
	other.Group, other.TopicPrefix, other.MQTTRoot = cfg.Group, cfg.TopicPrefix, cfg.MQTTRoot
	nodes := []*nodetest.Node{nodetest.Start(t, cfg), nodetest.Start(t, other)}
	for i := range 4 {
		d := nodes[0].Device(nodetest.Unique(fmt.Sprintf("d%d", i)))
		for seq := 1; seq <= 5; seq++ {
			d.Telemetry(fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"m":%d}}`, seq, seq))
		}
		nodes[0].Await(d.ID, "there", func(twin *doppelv1.Twin) bool { return twin.GetSeq() == 5 })
		for _, n := range nodes {
			var got *doppelv1.GetHistoryResponse
			var err error
			if !nodetest.Poll(func() bool {
				got, err = n.Twins().GetHistory(t.Context(), &doppelv1.GetHistoryRequest{Id: d.ID, Metric: "m"})
				return err == nil && len(got.GetPoints()) == 5
			}) {
				t.Errorf("%s of %s: %v, %v", d.ID, n.Config.NodeID, got, err)
			}
		}
	}
}
