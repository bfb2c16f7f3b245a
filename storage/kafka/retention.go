package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

const (
	// retentionInterval is how often an embedded log's size is looked at.
	retentionInterval = 5 * time.Second
	// retentionPause is the least time between two looks.
	retentionPause = time.Second
	// bytesPerBatch is how small the batches of a log may be on average before it is bounded by their
	// number: the broker keeps 72 bytes of memory for each.
	bytesPerBatch = 2 << 10
	// retentionComplaint is how often it is said that a log cannot be kept to its size.
	retentionComplaint = time.Minute
)

// Needs implements host.Retention.
func (c *Client) Needs(p int32, n host.Needs) {
	c.keep.need(p, n)
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Oldest implements host.Retention.
func (c *Client) Oldest(p int32) (host.Cursor, bool) { return c.keep.oldest(p) }

var _ host.Retention = (*Client)(nil)

// SetRowsCursor gives the place up to which the rows of a partition's changelog are in the time series
// store: records from it on are not removed, and none while it is not known (false). Without a call
// there is no such store. It is to be called before
// the first Needs.
func (c *Client) SetRowsCursor(rows func(p int32) (next int64, ok bool)) { c.rows.Store(&rows) }

// retain keeps an embedded log to its size until ctx ends.
//
// State goes below what a restore needs as soon as that is known. Ingest and the changelog stay, for
// replays and for who looks into them, until all topics together are larger than Config.RetentionBytes,
// or leave less of the disk than the log wants to keep free. Then ingest goes below what a restore
// needs, and each partition of the changelog has an equal share of what the other topics leave. It
// goes segment by segment, to a cursor Needs has been given, and never past what a restore needs nor
// past rows that are not stored: where that is more than the share, the log is larger.
func (c *Client) retain(ctx context.Context) {
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	var said time.Time
	done := map[int32]int64{}
	for {
		if err := c.trimAll(ctx, done); err != nil && ctx.Err() == nil && time.Since(said) >= retentionComplaint {
			said = time.Now()
			c.cfg.Logger.Warn("log not kept to its size", "error", err)
		}
		if rest(ctx, retentionPause) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.kick:
		}
	}
}

// trimAll removes once what may and should go. done holds how far state went before.
func (c *Client) trimAll(ctx context.Context, done map[int32]int64) error {
	var errs []error
	for p := range c.cfg.Partitions {
		n, known := c.keep.needs(p)
		if !known || n.State <= done[p] {
			continue
		}
		if err := c.trim(ctx, c.topics.State, p, n.State); err != nil {
			errs = append(errs, err)
			continue
		}
		done[p] = n.State
	}
	if c.cfg.DataDir != "" {
		errs = append(errs, c.trimToSize(ctx), c.keep.flush())
	}
	return errors.Join(errs...)
}

// trimToSize removes ingest and changelog where the log is too large.
func (c *Client) trimToSize(ctx context.Context) error {
	u, err := measure(c.cfg.DataDir, c.topics.Telemetry)
	if err != nil {
		return fmt.Errorf("size of the log: %w", err)
	}
	budget, err := c.budget(u.total)
	if err != nil {
		return err
	}
	if u.total <= budget && u.batches <= budget/bytesPerBatch {
		return nil
	}
	var errs []error
	for p := range c.cfg.Partitions {
		if n, known := c.keep.needs(p); known {
			errs = append(errs, c.trim(ctx, c.topics.Ingest, p, n.Ingest))
		}
	}
	share := max(0, budget-u.others) / int64(c.cfg.Partitions)
	for p := range c.cfg.Partitions {
		errs = append(errs, c.trimChangelog(ctx, p, u.segments[p], share))
	}
	return errors.Join(errs...)
}

// budget is how large the log may be: less than configured where the disk is small, or filled by others.
func (c *Client) budget(used int64) (int64, error) {
	s, err := spaceOf(c.cfg.DataDir)
	if err != nil {
		return 0, err
	}
	return min(c.cfg.RetentionBytes, used+max(0, s.free-2*s.reserve())), nil
}

// trimChangelog removes the oldest segments of p that are beyond its share.
func (c *Client) trimChangelog(ctx context.Context, p int32, segments []segmentUse, share int64) error {
	keep := firstKept(segments, share)
	if keep == 0 {
		return nil
	}
	n, known := c.keep.needs(p)
	if !known {
		return nil // its owner restores
	}
	limit := n.Changelog.Next
	if rows := c.rows.Load(); rows != nil {
		next, ok := (*rows)(p)
		if !ok {
			return fmt.Errorf("p%d is %d segments too large: it is not known which of its rows are stored", p, keep)
		}
		limit = min(limit, next)
	}
	to, ok := c.keep.cursorFor(p, segments[keep].base, limit)
	if !ok {
		return fmt.Errorf("p%d is %d segments too large: a restore needs it from %d, rows are stored to %d", p, keep, n.Changelog.Next, limit)
	}
	// First to disk: a cursor above the log's start is a true one, one below it is not.
	if err := c.keep.trimTo(p, to); err != nil {
		return err
	}
	return c.trim(ctx, c.topics.Telemetry, p, to.Next)
}

// firstKept is the index of the first segment within the share: in bytes, and in batches. The last
// one stays in any case.
func firstKept(segments []segmentUse, share int64) int {
	bytes, batches := int64(0), int64(0)
	for i, s := range slices.Backward(segments) {
		bytes += s.bytes
		batches += s.batches
		if (bytes > share || batches > share/bytesPerBatch) && i < len(segments)-1 {
			return i + 1
		}
	}
	return 0
}
