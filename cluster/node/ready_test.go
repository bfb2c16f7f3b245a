package node_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestNotReadyWithoutTheLog: a node whose log is gone lives, and says that it is not ready and why.
// The log is that of another node.
func TestNotReadyWithoutTheLog(t *testing.T) {
	other := nodetest.Start(t, nodetest.Embedded(t))
	cfg := nodetest.Embedded(t)
	cfg.Kafka, cfg.NodeAddr, cfg.TopicPrefix = []string{other.Kafka()}, "127.0.0.1:0", nodetest.Unique("test")+"."
	n := nodetest.Start(t, cfg)
	if code, body := probe(t, n, "/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s, want 200", code, body)
	}
	other.Stop()
	if code, body := probe(t, n, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the log does not answer") {
		t.Errorf("readyz without the log: %d %s, want 503", code, body)
	}
	if code, body := probe(t, n, "/livez"); code != http.StatusOK {
		t.Errorf("livez without the log: %d %s, want 200", code, body)
	}
}

// TestReadyServes: from the moment a node says that it is ready it answers about every device, however fast it was.
func TestReadyServes(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		for range 10 {
			n := nodetest.Start(t, cfg)
			if _, err := n.Twins().ListTwins(t.Context(), &doppelv1.ListTwinsRequest{}); err != nil {
				t.Errorf("list twins of a node that is ready: %v", err)
			}
			n.Stop()
		}
	})
}

func probe(t *testing.T, n *nodetest.Node, path string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Addresses.HTTP+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
