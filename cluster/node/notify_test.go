package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// hook is a webhook on an address of its own, where it comes and goes.
type hook struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	events []string // DEVICE STATE, each event once
	told   []string // their ids
	ids    map[string]bool
	broken bool
	asked  int
	server *http.Server
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{t: t, ids: map[string]bool{}}
	h.up()
	t.Cleanup(h.down)
	return h
}

func (h *hook) up() {
	h.t.Helper()
	addr := h.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	if !nodetest.Poll(func() (ok bool) {
		var err error
		l, err = new(net.ListenConfig).Listen(h.t.Context(), "tcp", addr)
		return err == nil
	}) {
		h.t.Fatal("the receiver's port is taken")
	}
	h.addr = l.Addr().String()
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	h.mu.Lock()
	h.server = s
	h.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

func (h *hook) down() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.server.Close()
}

func (h *hook) breaks(broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = broken
}

// ServeHTTP implements http.Handler.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e struct {
		ID   string
		Data struct{ Device, State string }
	}
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case h.broken:
		w.WriteHeader(http.StatusBadGateway)
	case h.ids[e.ID]:
		h.asked++
	default:
		h.asked++
		h.ids[e.ID] = true
		h.told = append(h.told, e.ID)
		h.events = append(h.events, e.Data.Device+" "+e.Data.State)
	}
}

// order are the ids of the events by partition, as they came first.
func (h *hook) order() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := map[string][]string{}
	for _, id := range h.told {
		_, place, _ := strings.Cut(id, "/")
		p, _, _ := strings.Cut(place, ":")
		ids[p] = append(ids[p], id)
	}
	return ids
}

// count is the number of requests answered well.
func (h *hook) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *hook) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// sinks writes a file of sinks for cfg.
func sinks(t *testing.T, cfg *node.Config, text string) {
	t.Helper()
	cfg.Notify = filepath.Join(t.TempDir(), "notify.yaml")
	if err := os.WriteFile(cfg.Notify, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// presence has a device say that it is there, or not: builtin.offline fires, or is over.
func presence(d *nodetest.Device, session int, online bool) {
	d.Send(&paho.Publish{Topic: d.Topic("status"), Payload: fmt.Appendf(nil, `{"online":%t,"boot":1,"session":%d}`, online, session)})
}

func onBoth(t *testing.T, test func(t *testing.T, cfg node.Config)) {
	t.Run("embedded", func(t *testing.T) { test(t, nodetest.Embedded(t)) })
	t.Run("real", func(t *testing.T) { test(t, nodetest.Real(t)) })
}

// TestNotify: what fires and what is over reaches a webhook once it is there, through its outage and that of the
// node, each once by its id and in order; a sink that never answers holds up nobody.
func TestNotify(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg node.Config) {
		h := newHook(t)
		dead, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer dead.Close()
		sinks(t, &cfg, fmt.Sprintf("sinks:\n- {name: dead, kind: webhook, url: 'http://%s/', timeout: 1s}\n- {name: ops, kind: webhook, url: 'http://%s/'}\n", dead.Addr(), h.addr))
		n := nodetest.Start(t, cfg)
		d := n.Device(nodetest.Unique("pump"))
		var want []string
		session := 0
		change := func() {
			t.Helper()
			session++
			presence(d, session, true)
			presence(d, session, false)
			if session > 1 {
				want = append(want, d.ID+" RESOLVED")
			}
			want = append(want, d.ID+" FIRING")
		}
		told := func(when string) {
			t.Helper()
			if !nodetest.Poll(func() bool { return cmp.Equal(want, h.got()) }) {
				t.Fatalf("%s (-want +got):\n%s", when, cmp.Diff(want, h.got()))
			}
		}
		change()
		told("while all is well")
		h.breaks(true)
		change()
		if !nodetest.Poll(func() bool { return n.Metrics()[`doppel_notifications_total{result="failed",sink="ops"}`] > 0 }) {
			t.Error("no failed attempt is counted")
		}
		h.breaks(false)
		told("when it answers again")
		h.down()
		change()
		n.Stop() // nobody was told of the last ones
		h.up()
		n = nodetest.Start(t, cfg)
		told("when node and receiver are back")
		d = n.Device(d.ID)
		change()
		told("afterwards")
		m := n.Metrics()
		if lag := m[`doppel_notify_lag_records{sink="dead"}`]; lag == 0 {
			t.Errorf("the dead one lags behind by %v", lag)
		}
	})
}

// TestNotifyMoves: all that stands in doppel.alerts is told, in the order of each partition, while partitions go
// from node to node and back; what is told twice bears the same id.
func TestNotifyMoves(t *testing.T) {
	h := newHook(t)
	cfg := nodetest.Real(t)
	cfg.Partitions = 8
	sinks(t, &cfg, fmt.Sprintf("sinks: [{name: ops, kind: webhook, url: 'http://%s/'}]", h.addr))
	first := nodetest.Start(t, cfg)
	var devices []*nodetest.Device
	for range 8 {
		devices = append(devices, first.Device(nodetest.Unique("pump")))
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for session := 1; ; session++ {
			for _, d := range devices {
				presence(d, session, true)
				presence(d, session, false)
			}
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	other := nodetest.Real(t)
	other.Group, other.TopicPrefix, other.MQTTRoot, other.Partitions, other.Notify = cfg.Group, cfg.TopicPrefix, cfg.MQTTRoot, cfg.Partitions, cfg.Notify
	second := nodetest.Start(t, other)
	if !nodetest.Poll(func() bool { return second.Metrics()[`doppel_partitions{state="serving"}`] == 4 }) {
		t.Fatal("the second node has not its partitions")
	}
	n := len(h.got())
	if !nodetest.Poll(func() bool { return len(h.got()) > n+100 }) {
		t.Fatal("nothing is told any more")
	}
	second.Stop()
	n = len(h.got())
	if !nodetest.Poll(func() bool { return len(h.got()) > n+100 }) {
		t.Fatal("nothing is told any more when the second node is gone")
	}
	close(stop)
	<-ended
	var want, got map[string][]string
	if !nodetest.Poll(func() bool { want, got = published(t, &cfg), h.order(); return cmp.Equal(want, got) }) {
		t.Errorf("by partition (-doppel.alerts +told):\n%s", cmp.Diff(want, got))
	}
	t.Logf("%d told in %d requests", len(h.got()), h.count())
}

// published are the ids of what fires or is over in doppel.alerts, each once, by partition and in its order.
func published(t *testing.T, cfg *node.Config) map[string][]string {
	t.Helper()
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: cfg.Kafka, TopicPrefix: cfg.TopicPrefix, Partitions: cfg.Partitions})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start, end, err := c.AlertLog().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids, seen := map[string][]string{}, map[string]bool{}
	err = c.AlertLog().Read(t.Context(), start, end, func(p host.Published) error {
		id := fmt.Sprintf("%s/%d:%d:%d", p.Alert.GetId(), p.Partition, p.Offset, p.Index)
		if a := p.Alert; !seen[id] && (a.GetState() == doppelv1.AlertState_FIRING || a.GetState() == doppelv1.AlertState_RESOLVED) {
			seen[id] = true
			ids[strconv.Itoa(int(p.Partition))] = append(ids[strconv.Itoa(int(p.Partition))], id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestNotifyIsChecked: a file that is wrong ends the node before it starts.
func TestNotifyIsChecked(t *testing.T) {
	cfg := nodetest.Embedded(t)
	sinks(t, &cfg, "sinks: [{name: ops, kind: webhook, urll: http://x}]")
	if _, err := node.New(cfg, nil); err == nil || !strings.Contains(err.Error(), "urll is not a setting; did you mean url?") {
		t.Errorf("misspelt: %v", err)
	}
	cfg.Notify = filepath.Join(t.TempDir(), "none.yaml")
	if _, err := node.New(cfg, nil); err == nil || !strings.Contains(err.Error(), "notify: ") {
		t.Errorf("missing: %v", err)
	}
}
