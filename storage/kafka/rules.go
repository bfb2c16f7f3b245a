package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// PutRule writes a record of doppel.rules, value nil a tombstone, and returns its offset when all replicas have it.
// One node at a time writes there.
func (c *Client) PutRule(ctx context.Context, key string, value []byte) (offset int64, err error) {
	r := &kgo.Record{Topic: c.topics.Rules, Partition: 0, Key: []byte(key), Value: value}
	if err := c.side.ProduceSync(ctx, r).FirstErr(); err != nil {
		return 0, fmt.Errorf("write %s: %w", c.topics.Rules, err)
	}
	return r.Offset, nil
}

// RulesEnd is the offset behind the last record of doppel.rules.
func (c *Client) RulesEnd(ctx context.Context) (int64, error) {
	f := &fetcher{cl: c.side, topic: c.topics.Rules}
	_, end, err := f.bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("end of %s: %w", c.topics.Rules, err)
	}
	return end, nil
}

// FollowRules calls fn for every record of doppel.rules, oldest first and then as they come, until ctx ends;
// value is nil for a tombstone, next the offset behind the record. Of a record that was replaced before, fn may
// be told or not. ready is called once, with the offset behind all that stood there at the start, when that was told.
//
// It outlasts a broker that is away, and never returns nil. ready and fn are called by one goroutine; fn may keep value.
func (c *Client) FollowRules(ctx context.Context, ready func(next int64), fn func(key string, value []byte, next int64)) error {
	return c.followTopic(ctx, c.topics.Rules, ready, func(r host.LogRecord) {
		fn(string(r.Key), slices.Clone(r.Value), r.Offset+1)
	})
}
