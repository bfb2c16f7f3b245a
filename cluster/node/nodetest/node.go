// Package nodetest runs nodes inside a test: on free ports, in a directory of their own, stopped with
// the test. It also holds what a test needs around a node: devices, dead letters, metrics.
//
// It judges nothing: what must hold is for the tests to say. Its functions may be called from one
// goroutine of a test at a time.
package nodetest

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/cluster/node"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Patience is how long anything may take before a test gives up on it.
const Patience = 20 * time.Second

// Node is a node under test.
type Node struct {
	Addresses node.Addresses
	Config    node.Config

	t    testing.TB
	conn *grpc.ClientConn
	stop context.CancelFunc
	done chan struct{}
	err  error
	once sync.Once
	log  lockedBuffer
}

// Start runs a node with cfg (see Embedded and Real) and returns once it is ready. prepare may change
// it before it runs.
func Start(t testing.TB, cfg node.Config, prepare ...func(*node.Node)) *Node {
	t.Helper()
	n := &Node{Config: cfg, t: t, done: make(chan struct{})}
	run, err := node.New(cfg, slog.New(slog.NewTextHandler(&n.log, nil)))
	if err != nil {
		t.Fatalf("configure node: %v", err)
	}
	for _, f := range prepare {
		f(run)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() {
		defer close(n.done)
		n.err = run.Run(ctx)
	}()
	t.Cleanup(func() {
		n.Stop()
		if t.Failed() {
			t.Logf("node %s:\n%s", cfg.NodeID, n.log.tail(8000))
		}
	})
	select {
	case n.Addresses = <-run.Ready():
	case <-n.done:
		t.Fatalf("node ended before it was ready: %v", n.err)
	case <-time.After(2 * Patience):
		t.Fatal("node is not ready")
	}
	if n.conn, err = grpc.NewClient(n.Addresses.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	return n
}

// Stop hands over and drains; the test fails if the node ended with an error.
func (n *Node) Stop() {
	n.once.Do(func() {
		if n.conn != nil {
			_ = n.conn.Close()
		}
		n.stop()
		select {
		case <-n.done:
			if n.err != nil {
				n.t.Errorf("node ended: %v", n.err)
			}
		case <-time.After(2 * Patience):
			n.t.Error("node does not stop")
		}
	})
}

// Twins is a client of the node's API.
func (n *Node) Twins() doppelv1.TwinServiceClient { return doppelv1.NewTwinServiceClient(n.conn) }

// Alerts is a client of the node's API.
func (n *Node) Alerts() doppelv1.AlertServiceClient { return doppelv1.NewAlertServiceClient(n.conn) }

// Rules is a client of the node's API.
func (n *Node) Rules() doppelv1.RuleServiceClient { return doppelv1.NewRuleServiceClient(n.conn) }

// Fleet is a client of the node's API.
func (n *Node) Fleet() doppelv1.FleetServiceClient { return doppelv1.NewFleetServiceClient(n.conn) }

// Twin is a twin now, nil if there is none.
func (n *Node) Twin(id string) *doppelv1.Twin {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var twin *doppelv1.Twin
	var err error
	Poll(func() bool { // a partition that restores itself says so
		twin, err = n.Twins().GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
		return status.Code(err) != codes.Unavailable
	})
	switch {
	case status.Code(err) == codes.NotFound:
		return nil
	case err != nil:
		n.t.Fatalf("get twin %s: %v", id, err)
	}
	return twin
}

// Await is the twin once ok holds for it.
func (n *Node) Await(id, what string, ok func(*doppelv1.Twin) bool) *doppelv1.Twin {
	n.t.Helper()
	var twin *doppelv1.Twin
	if !Poll(func() bool { twin = n.Twin(id); return twin != nil && ok(twin) }) {
		n.t.Fatalf("twin %s: not %s: %v", id, what, twin)
	}
	return twin
}

// Poll tries until ok holds, for as long as patience lasts.
func Poll(ok func() bool) bool {
	for deadline := time.Now().Add(Patience); ; {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// defaults are the defaults of `doppel run`.
func defaults() node.Config {
	var cfg node.Config
	cfg.Flags(pflag.NewFlagSet("run", pflag.PanicOnError))
	return cfg
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b.Bytes()
	return string(b[max(0, len(b)-n):])
}
