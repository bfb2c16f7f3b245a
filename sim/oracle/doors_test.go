package oracle

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestNodeCPU(t *testing.T) {
	t.Parallel()
	body := "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 12.5\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		fmt.Fprint(w, body)
	}))
	defer s.Close()
	for _, address := range []string{s.URL, strings.TrimPrefix(s.URL, "http://")} {
		if got, err := newScraper(nil, "").nodeCPU(t.Context(), address); err != nil || got != 12500*time.Millisecond {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	if got, err := newScraper(nil, "").nodesCPU(t.Context(), s.URL+", "+s.URL); err != nil || got != 25*time.Second {
		t.Errorf("two nodes: %v, %v", got, err)
	}
	if _, err := newScraper(nil, "").nodesCPU(t.Context(), s.URL+",127.0.0.1:1"); err == nil {
		t.Error("no error though one of two nodes is away")
	}
	body = "go_goroutines 3\n"
	if _, err := newScraper(nil, "").nodeCPU(t.Context(), s.URL); err == nil {
		t.Error("no error though the metric is missing")
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	counts := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query().Get("query"); {
		case strings.Contains(q, "boot = 1"):
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"table does not exist [table=telemetry]"}`)
		case strings.HasPrefix(q, "SELECT count()"):
			counts++
			fmt.Fprintf(w, `{"dataset":[[%d]]}`, 5*counts)
		case strings.HasPrefix(q, "SELECT device"):
			fmt.Fprint(w, `{"dataset":[["d1",11,10],["d2",3,3]]}`)
		default:
			t.Errorf("query %q", q)
		}
	}))
	defer s.Close()
	q := newRows(s.URL + "/")
	if n, err := q.count(t.Context(), 1); n != 0 || err != nil {
		t.Errorf("no table: %d, %v", n, err)
	}
	if n, err := q.settle(t.Context(), 2, 10, time.Minute); n != 10 || err != nil {
		t.Errorf("settled at %d, %v", n, err)
	}
	got, err := q.perDevice(t.Context(), 2)
	if diff := cmp.Diff(map[string][2]uint64{"d1": {11, 10}, "d2": {3, 3}}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// The tail sees what comes after it was opened, and nothing from before.
func TestTail(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "x.telemetry"), kfake.SeedTopics(1, "x.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	b, n := uint64(boot), uint64(0)
	produce := func(seq uint64, poison string) {
		n++
		value, err := proto.Marshal(&doppelv1.TwinEvent{
			Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, N: n, Sample: &doppelv1.SampleInput{Boot: &b, Seq: &seq},
			Applied: []*doppelv1.AppliedSample{{Own: true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = producer.ProduceSync(t.Context(),
			&kgo.Record{Topic: "x.telemetry", Partition: 1, Key: []byte("d1"), Value: value},
			&kgo.Record{Topic: "x.dlq", Value: []byte(poison)}).FirstErr()
		if err != nil {
			t.Fatal(err)
		}
	}

	l := newLedger(time.Now(), []string{"d1"})
	l.Sent(0, 1, 10, time.Now().UnixNano())
	l.Poisoned([]byte("bad"))
	produce(1, "bad")
	tail, err := openTail(t.Context(), cluster.ListenAddrs(), nil, "x.", newChangelog(boot, l, nil), l, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tail.run(ctx)
	}()
	for seq := uint64(2); seq <= 10; seq++ {
		produce(seq, "somebody else's")
	}
	d := sent()
	tail.settle(t.Context(), []Device{d}, time.Second) // number 1 and the poison were before it
	a := tail.judge([]Device{d}, 0)
	if diff := cmp.Diff(map[Fault]uint64{Lost: 1, Poison: 1}, faults(a)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	cancel()
	<-done

	if _, err := openTail(t.Context(), cluster.ListenAddrs(), nil, "y.", nil, l, nil); err == nil {
		t.Error("no error though the topics are missing")
	}
}
