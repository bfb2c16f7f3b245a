package query_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/cluster/query"
	"github.com/doppel-iot/doppel/cluster/rulebook"
	"github.com/doppel-iot/doppel/gateway/api"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// patience of every node here.
const patience = 500 * time.Millisecond

// world is nodes in one process on one log, with real connections between them. Who serves what is
// decided by the test.
type world struct {
	t     *testing.T
	log   *kafka.Embedded
	nodes []*node

	mu     sync.Mutex
	owners [partitions]int // index of a node, -1: none
	gone   map[int]bool    // nodes that are no members any more
}

// node is one of them.
type node struct {
	w       *world
	index   int
	id      string
	client  *kafka.Client
	host    *host.Host
	hub     *api.Hub
	reader  *query.Reader
	fleet   *query.Fleet
	part    *part
	peers   *grpc.Server // what other nodes ask
	door    *grpc.Server // what people ask
	address string
	twins   doppelv1.TwinServiceClient
	alerts  doppelv1.AlertServiceClient
	rules   doppelv1.RuleServiceClient
	book    *rulebook.Book

	hold atomic.Pointer[hold] // nil: questions are answered at once

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func newWorld(t *testing.T, n int, change func(*api.HubConfig)) *world {
	t.Helper()
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, log: log, gone: make(map[int]bool)}
	for i := range w.owners {
		w.owners[i] = -1
	}
	for range n {
		w.add(change)
	}
	for p := range int32(partitions) {
		w.move(p, int(p)%n)
	}
	return w
}

// add starts a node that serves nothing.
func (w *world) add(change func(*api.HubConfig)) *node {
	w.t.Helper()
	n := &node{w: w, index: len(w.nodes), id: fmt.Sprintf("n%d", len(w.nodes)), conns: make(map[string]*grpc.ClientConn)}
	var err error
	n.client, err = kafka.Open(w.t.Context(), kafka.Config{Brokers: []string{w.log.Addr()}, Partitions: partitions, Embedded: true, Linger: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	hub := api.HubConfig{Alerts: n.client.AlertLog(), Others: query.NewFeeds(n.config())}
	if change != nil {
		change(&hub)
	}
	n.hub = api.NewHub(hub)
	var nonce atomic.Uint64
	nonce.Store(uint64(n.index+1) << 32)
	n.host, err = host.New(host.Config{
		Node: n.id, Partitions: partitions, Incarnation: 1,
		Changelog: n.client.Changelog(), State: n.client.State(), Ingest: n.client.Ingest(), DeadLetters: n.client.DeadLetters(), Alerts: n.client.AlertLog(),
		Watchers: n.hub, Clock: func() int64 { return time.Now().UnixNano() }, Nonce: func() uint64 { return nonce.Add(1) }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	n.reader = query.New(n.config())
	n.part = &part{n: n}
	n.fleet = query.NewFleet(query.FleetConfig{Reader: n.reader, Part: n.part, Target: w.target, Letters: n.client.Letters()})
	n.serve()
	w.mu.Lock()
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
	return n
}

func (n *node) config() query.Config {
	return query.Config{
		Node: n.id, Host: held{n.host, n}, Partitions: partitions, Patience: patience, Conn: n.conn, Members: n.w.members,
		Route: func(p int32) query.Route { return n.w.route(n.index, p) },
	}
}

// serve opens both doors of a node.
func (n *node) serve() {
	t := n.w.t
	var err error
	n.book, err = rulebook.New(rulebook.Config{
		Log: n.client, Compiler: n.host.Compiler(), Publish: n.host.SetRules, Writes: func() bool { return n.host.Partition(0).State == host.Serving },
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := api.New(api.Config{
		Twins: n.reader, Past: n.reader, Alerts: n.reader, Fleet: n.fleet, Drains: n.fleet, Resets: n.reader, Writes: n.reader, Rules: query.NewRules(n.reader, n.book), Hub: n.hub, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.peers, n.door = grpc.NewServer(), a.Server(insecure.NewCredentials())
	answers := query.NewServer(held{n.host, n}, n.part, n.hub)
	answers.ServeRules(n.book)
	answers.Register(n.peers)
	var served sync.WaitGroup
	listen := func(s *grpc.Server) string {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served.Go(func() {
			if err := s.Serve(l); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	n.address = listen(n.peers)
	conn, err := n.conn(listen(n.door))
	if err != nil {
		t.Fatal(err)
	}
	n.twins, n.alerts, n.rules = doppelv1.NewTwinServiceClient(conn), doppelv1.NewAlertServiceClient(conn), doppelv1.NewRuleServiceClient(conn)
	ctx, cancel := context.WithCancel(context.Background())
	followed := make(chan error, 2)
	go func() { followed <- n.hub.Run(ctx) }()
	go func() { followed <- n.book.Run(ctx) }()
	t.Cleanup(func() {
		n.hub.Close()
		cancel()
		for range 2 {
			if err := <-followed; err != nil {
				t.Error(err)
			}
		}
		n.door.Stop()
		n.peers.Stop()
		served.Wait()
		for p := range int32(partitions) {
			n.host.Drop(p)
		}
		eventually(t, "the partitions are let go of", func() bool {
			return !slices.ContainsFunc(n.host.Partitions(), func(v host.View) bool { return v.State != host.Idle })
		})
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range n.conns {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := n.client.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (n *node) conn(address string) (*grpc.ClientConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.conns[address]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		n.conns[address] = c
	}
	return c, err
}

func (w *world) members() []*doppelv1.NodeRecord {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*doppelv1.NodeRecord
	for _, n := range w.nodes {
		if !w.gone[n.index] {
			all = append(all, &doppelv1.NodeRecord{Id: n.id, Address: n.address, Version: "v1"})
		}
	}
	return all
}

func (w *world) route(from int, p int32) query.Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch owner := w.owners[p]; {
	case owner < 0:
		return query.Route{}
	case owner == from:
		return query.Route{Local: true}
	default:
		return query.Route{Address: w.nodes[owner].address}
	}
}

func (w *world) target(p int32) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owners[p] < 0 {
		return ""
	}
	return w.nodes[w.owners[p]].id
}

// move hands a partition over, in order, and returns when its new owner serves it.
func (w *world) move(p int32, to int) {
	w.t.Helper()
	w.mu.Lock()
	from := w.owners[p]
	w.mu.Unlock()
	if from >= 0 {
		if err := w.nodes[from].host.Release(w.t.Context(), p); err != nil {
			w.t.Fatal(err)
		}
	}
	w.take(p, to)
}

// take makes a node own a partition, whatever the last owner does.
func (w *world) take(p int32, to int) {
	w.t.Helper()
	n := w.nodes[to]
	n.host.Own(p)
	eventually(w.t, "the partition is served", func() bool { return n.host.Partition(p).State == host.Serving })
	w.mu.Lock()
	w.owners[p] = to
	w.mu.Unlock()
}

// owner is the node that serves a device.
func (w *world) owner(device string) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[w.owners[placement.Partition([]byte(device), partitions)]]
}

func (*world) partition(device string) int32 { return placement.Partition([]byte(device), partitions) }

// on is a device that a node serves now.
func (w *world) on(n *node, name string) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("%s-%d", name, i); w.owner(id) == n {
			return id
		}
	}
}

// send delivers a message of a device to its owner and waits until it counts.
func (w *world) send(device string, kind host.MessageKind, payload string) {
	w.t.Helper()
	v := verdict{done: make(chan host.Verdict, 1)}
	p := placement.Partition([]byte(device), partitions)
	err := w.owner(device).host.Push(w.t.Context(), p, []host.Message{{
		Kind: kind, Device: []byte(device), Payload: []byte(payload), Topic: "devices", ReceivedAt: time.Now().UnixNano(), Reply: v, Token: 1,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	select {
	case got := <-v.done:
		if got != host.Released {
			w.t.Fatalf("message of %s: verdict %d", device, got)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("message of %s: no verdict", device)
	}
}

func (w *world) sample(device string, seq int) {
	w.t.Helper()
	w.send(device, host.Telemetry, fmt.Sprintf(`{"boot":1,"seq":%d,"metrics":{"x":%d}}`, seq, seq))
}

// verdict implements host.Reply for one message.
type verdict struct{ done chan host.Verdict }

func (v verdict) Done(_ []uint64, got host.Verdict) { v.done <- got }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
