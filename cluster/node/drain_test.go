package node_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// TestDrained: a node is drained when it has neither partitions nor a share of what devices publish. One
// whose broker is out of reach cannot give that up; one that devices connect to has none.
func TestDrained(t *testing.T) {
	t.Parallel()
	prefix := nodetest.Unique("test") + "."
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{
		Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "log"), TopicPrefix: prefix, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	group := nodetest.Unique("group")
	start := func(brokers ...string) *nodetest.Node {
		cfg := nodetest.Embedded(t)
		cfg.Kafka, cfg.NodeAddr, cfg.Group, cfg.TopicPrefix, cfg.MQTT = []string{log.Addr()}, "127.0.0.1:0", group, prefix, brokers
		return nodetest.Start(t, cfg)
	}
	broker := nodetest.Start(t, nodetest.Embedded(t)) // that of a node with a log of its own
	without := start()
	with := start(broker.Broker())
	drain := func(n *nodetest.Node, undo bool) {
		ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
		defer cancel()
		if _, err := n.Fleet().DrainNode(ctx, &doppelv1.DrainNodeRequest{Id: n.Config.NodeID, Undo: undo}); err != nil {
			t.Fatal(err)
		}
	}
	// await waits until a node has partitions, or none, and is in a state; once it is drained nothing follows.
	await := func(n *nodetest.Node, has bool, want string) {
		t.Helper()
		got := "unknown"
		if !nodetest.Poll(func() bool {
			s, err := n.Fleet().GetStatus(t.Context(), &doppelv1.GetStatusRequest{})
			if err != nil {
				return false
			}
			for _, node := range s.GetNodes() {
				if node.GetId() == n.Config.NodeID && has == (node.GetPartitions() > 0) {
					got = node.GetState()
				}
			}
			return got == want || got == "drained"
		}) || got != want {
			t.Fatalf("node is %s, want it %s", got, want)
		}
	}
	await(without, true, "serving")
	await(with, true, "serving")
	broker.Stop()
	drain(with, false)
	await(with, false, "draining")
	drain(with, true)
	await(with, true, "serving")
	drain(without, false)
	await(without, false, "drained")
}
