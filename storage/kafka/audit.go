package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// KeepAudit writes one record of a write by somebody to doppel.audit: JSON, keyed by what was written to.
// It blocks while too much is on its way; done is called once, from another goroutine.
func (c *Client) KeepAudit(ctx context.Context, key, entry []byte, done func(error)) {
	r := &kgo.Record{Topic: c.topics.Audit, Value: entry, Headers: []kgo.RecordHeader{header("content-type", "application/json")}}
	if len(key) > 0 {
		r.Key = key
	}
	c.out.put(ctx, r, "record of a write", done)
}
