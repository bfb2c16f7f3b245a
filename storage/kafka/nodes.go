package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// PutNode writes how others reach a node to doppel.nodes. It must stand there before the node's
// first SUBSCRIBE: whoever adopts the MQTT session of a dead node finds its client id here.
func (c *Client) PutNode(ctx context.Context, n *doppelv1.NodeRecord) error {
	b, err := proto.Marshal(n)
	if err != nil {
		return fmt.Errorf("node record: %w", err)
	}
	return c.writeNode(ctx, n.GetId(), b)
}

// RemoveNode ends the record of one run of a node: nothing waits for it any more. The record of a later
// run stays. Who writes a record at the very moment when that of an earlier run is removed may lose it,
// so a node sees to it, by FollowNodes, that its own stands.
func (c *Client) RemoveNode(ctx context.Context, id string, incarnation uint64) error {
	read, done := context.WithCancel(ctx)
	defer done()
	var newest *doppelv1.NodeRecord
	known := false
	err := c.FollowNodes(read, func() { known = true; done() }, func(of string, n *doppelv1.NodeRecord) {
		if of == id && !known {
			newest = n
		}
	})
	if err != nil && !known {
		return fmt.Errorf("remove node %s: %w", id, err)
	}
	if newest.GetIncarnation() != incarnation {
		return nil
	}
	return c.writeNode(ctx, id, nil)
}

func (c *Client) writeNode(ctx context.Context, id string, value []byte) error {
	r := &kgo.Record{Topic: c.topics.Nodes, Partition: 0, Key: []byte(id), Value: value}
	if err := c.side.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("write %s: %w", c.topics.Nodes, err)
	}
	return nil
}

// FollowNodes calls fn for every record of doppel.nodes, oldest first and then as they come, until ctx
// ends: with nil where a record was removed. Of a record that was replaced before, fn may be told or not.
// ready is called once, when everything that stood there at the start was told.
//
// It outlasts a broker that is away, and never returns nil. ready and fn are called by one goroutine.
func (c *Client) FollowNodes(ctx context.Context, ready func(), fn func(id string, n *doppelv1.NodeRecord)) error {
	return c.followTopic(ctx, c.topics.Nodes, func(int64) { ready() }, func(r host.LogRecord) { c.tellNode(r, fn) })
}

// followTopic follows a topic of one partition from its start, and never returns nil. ready is given the offset
// behind all that stood there at the start.
func (c *Client) followTopic(ctx context.Context, topic string, ready func(next int64), fn func(host.LogRecord)) error {
	cl, err := kgo.NewClient(c.cfg.connection()...)
	if err != nil {
		return fmt.Errorf("follow %s: %w", topic, err)
	}
	defer cl.Close()
	return fmt.Errorf("follow %s: %w", topic, followAll(ctx, &fetcher{cl: cl, topic: topic}, ready, fn))
}

// followAll never returns nil.
func followAll(ctx context.Context, f *fetcher, ready func(next int64), fn func(host.LogRecord)) error {
	start, end, err := f.bounds(ctx)
	if err != nil {
		return err
	}
	for next, known := start, false; ; {
		if !known && next >= end {
			known = true
			ready(next)
		}
		batches, err := f.fetch(ctx, next)
		if gone := (*TruncatedError)(nil); errors.As(err, &gone) {
			next = gone.Start // what was there has been replaced since
			continue
		}
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			// Where compaction has emptied the end of the log, no record will ever come up to it.
			if !known {
				if _, now, err := f.bounds(ctx); err != nil {
					return err
				} else if now == end {
					end = next
				}
			}
			continue
		}
		whole, behind, err := wholeBatches(batches)
		if err != nil {
			return err
		}
		err = eachRecord(whole, next, math.MaxInt64, func(r host.LogRecord) error {
			fn(r)
			return nil
		})
		if err != nil {
			return err
		}
		next = behind
	}
}

// tellNode tells fn of one record. What is not one of ours is passed over, and said.
func (c *Client) tellNode(r host.LogRecord, fn func(id string, n *doppelv1.NodeRecord)) {
	id := string(r.Key)
	if r.Value == nil {
		fn(id, nil)
		return
	}
	n := new(doppelv1.NodeRecord)
	if err := proto.Unmarshal(slices.Clone(r.Value), n); err != nil || n.GetId() != id {
		c.cfg.Logger.Warn("not the record of a node", "topic", c.topics.Nodes, "offset", r.Offset, "key", id, "error", err)
		return
	}
	fn(id, n)
}
