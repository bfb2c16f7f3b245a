package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// PutNode writes how others reach a node to doppel.nodes. It must stand there before the node's
// first SUBSCRIBE: whoever adopts the MQTT session of a dead node finds its client id here.
func (c *Client) PutNode(ctx context.Context, n *doppelv1.NodeRecord) error {
	b, err := proto.Marshal(n)
	if err != nil {
		return fmt.Errorf("node record: %w", err)
	}
	r := &kgo.Record{Topic: c.topics.Nodes, Partition: 0, Key: []byte(n.GetId()), Value: b}
	if err := c.side.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("write %s: %w", c.topics.Nodes, err)
	}
	return nil
}
