package remote

import (
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a Remote with its engine and its gRPC server on loopback.
type node struct {
	*Remote
	engine *actor.Engine
	server *grpc.Server

	mu      sync.Mutex
	refused []*doppelv1.Refusal
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startNode starts a node that ends with the test.
func startNode(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	return startNodeOn(t, l, l.Addr().String(), change...)
}

// startNodeOn starts a node that listens on l and is known under address.
func startNodeOn(t testing.TB, l net.Listener, address string, change ...func(*Config)) *node {
	t.Helper()
	n := &node{}
	// Patient, so that a busy machine is not taken for a stalled peer; tests that need one say so.
	cfg := Config{Address: address, StallAfter: time.Minute, FlushTimeout: time.Minute, OnRefused: func(_ string, r *doppelv1.Refusal) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.refused = append(n.refused, r)
	}}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", address)
	}
	for _, c := range change {
		c(&cfg)
	}
	n.Remote = New(cfg)
	var err error
	if n.engine, err = n.NewEngine(); err != nil {
		t.Fatal(err)
	}
	n.server = grpc.NewServer(n.ServerOptions()...)
	n.Register(n.server)
	healthv1.RegisterHealthServer(n.server, health.NewServer())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.server.Serve(l)
	}()
	t.Cleanup(func() {
		n.Stop().Wait()
		n.server.Stop()
		<-served
	})
	return n
}

// refusals returns those that came back so far.
func (n *node) refusals() []*doppelv1.Refusal {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*doppelv1.Refusal(nil), n.refused...)
}

// inbox is an actor of that name that keeps what it gets.
type inbox struct {
	mu   sync.Mutex
	got  []proto.Message
	from []string
}

func (n *node) inbox() *inbox {
	var in inbox
	n.Handle("inbox", func(from string, m proto.Message) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.got = append(in.got, m)
		in.from = append(in.from, from)
	})
	return &in
}

func (in *inbox) len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.got)
}

// seqs are the numbers of the heartbeats that came.
func (in *inbox) seqs() (s []uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range in.got {
		s = append(s, m.(*doppelv1.Heartbeat).GetSeq())
	}
	return s
}

func beat(seq uint64) *doppelv1.Heartbeat { return &doppelv1.Heartbeat{Node: "n", Seq: seq} }

// padded is a message of about n bytes.
func padded(n int) *doppelv1.Heartbeat { return &doppelv1.Heartbeat{Node: strings.Repeat("x", n)} }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) { // polled
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// connected waits until n has a stream to address.
func (n *node) connected(t testing.TB, address string) {
	t.Helper()
	if _, err := n.Conn(address); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected to "+address, func() bool { return n.is(address, up) })
}

func (n *node) is(address string, c condition) bool {
	n.Remote.mu.RLock()
	p := n.peers[address]
	n.Remote.mu.RUnlock()
	return p != nil && p.is(c)
}

func mustTell(t testing.TB, n *node, address, name string, m proto.Message) {
	t.Helper()
	if err := n.Tell(address, name, m); err != nil {
		t.Fatal(err)
	}
}

func withTLS(c *tls.Config) func(*Config) {
	return func(cfg *Config) { cfg.TLS = func() *tls.Config { return c } }
}

func blockOn(free <-chan struct{}) func(string, proto.Message) {
	return func(string, proto.Message) { <-free }
}
