package node_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// TestStopWithoutKafka: a node that is told to stop does not wait for others to take over what it has when
// the group cannot tell them: all of its 30 s may be needed for the rest.
func TestStopWithoutKafka(t *testing.T) {
	t.Parallel()
	prefix := nodetest.Unique("test") + "."
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{
		Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "log"), TopicPrefix: prefix, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	group := nodetest.Unique("group")
	var nodes []*nodetest.Node
	for range 2 {
		cfg := nodetest.Embedded(t)
		cfg.Kafka, cfg.NodeAddr, cfg.Group, cfg.TopicPrefix = []string{log.Addr()}, "127.0.0.1:0", group, prefix
		nodes = append(nodes, nodetest.Start(t, cfg))
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	<-time.After(6 * time.Second) // the group may still be believed to be there before
	begun := time.Now()
	nodes[0].Stop()
	if took := time.Since(begun); took > 9*time.Second {
		t.Errorf("stopped after %v without anything to settle", took)
	}
}
