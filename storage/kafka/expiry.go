package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// expiryInterval is how often an embedded log is relieved of what is too old.
const expiryInterval = 10 * time.Minute

// Run does what the log needs regularly until ctx ends. A Kafka expires records by itself; the
// embedded log has its records of ingest, alerts and dlq removed here by age, those of ingest once they
// are handled. The last record of a partition always stays, so that its offsets go on after a restart.
//
// Telemetry and state go by what is told to Needs (retention.go).
func (c *Client) Run(ctx context.Context) error {
	if !c.cfg.Embedded {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	retained := make(chan struct{})
	defer func() { cancel(); <-retained }()
	go func() {
		defer close(retained)
		c.retain(ctx)
	}()
	tick := time.NewTicker(expiryInterval)
	defer tick.Stop()
	for {
		if err := c.expire(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Warn("old records not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// expire removes what is older than its topic keeps.
func (c *Client) expire(ctx context.Context, now time.Time) error {
	for _, t := range c.cfg.wanted() {
		if t.compact || t.name == c.topics.Telemetry {
			continue
		}
		young, err := c.adm.ListOffsetsAfterMilli(ctx, now.Add(-t.keep).UnixMilli(), t.name)
		if err != nil {
			return fmt.Errorf("expire %s: %w", t.name, err)
		}
		for p := range t.partitions {
			o, ok := young.Lookup(t.name, p)
			if !ok || o.Err != nil {
				continue
			}
			before := o.Offset
			if t.name == c.topics.Ingest { // however old: not before it was handled
				n, _ := c.keep.needs(p)
				before = min(before, n.Ingest)
			}
			if err := c.trim(ctx, t.name, p, before); err != nil {
				return fmt.Errorf("expire: %w", err)
			}
		}
	}
	return nil
}

// Trim removes the records of p below before, and keeps the last one in any case. The caller sees to
// it that no restore needs them (protocol.md, C4).
func (l *Log) Trim(ctx context.Context, p int32, before int64) error {
	return l.c.trim(ctx, l.topic, p, before)
}

func (c *Client) trim(ctx context.Context, topic string, p int32, before int64) error {
	start, err := c.offset(ctx, topic, p, listStart)
	if err != nil {
		return err
	}
	end, err := c.offset(ctx, topic, p, listEnd)
	if err != nil {
		return err
	}
	if before = min(before, end-1); before <= start {
		return nil
	}
	var offsets kadm.Offsets
	offsets.AddOffset(topic, p, before, -1)
	resp, err := c.adm.DeleteRecords(ctx, offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		return fmt.Errorf("trim %s p%d to %d: %w", topic, p, before, err)
	}
	return nil
}
