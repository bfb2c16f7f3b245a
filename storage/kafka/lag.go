package kafka

import (
	"context"
	"fmt"
)

// IngestLag is how many records of doppel.ingest each partition has behind what the group has committed;
// of a partition without a commit, how many there are.
func (c *Client) IngestLag(ctx context.Context, group string) ([]int64, error) {
	committed, err := c.adm.FetchOffsets(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	starts, err := c.adm.ListStartOffsets(ctx, c.topics.Ingest)
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", c.topics.Ingest, err)
	}
	ends, err := c.adm.ListCommittedOffsets(ctx, c.topics.Ingest)
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", c.topics.Ingest, err)
	}
	lag := make([]int64, c.cfg.Partitions)
	for p := range lag {
		end, ok := ends.Lookup(c.topics.Ingest, int32(p))
		if !ok || end.Err != nil {
			return nil, fmt.Errorf("end of %s p%d: %w", c.topics.Ingest, p, end.Err)
		}
		from, ok := starts.Lookup(c.topics.Ingest, int32(p))
		if !ok || from.Err != nil {
			return nil, fmt.Errorf("start of %s p%d: %w", c.topics.Ingest, p, from.Err)
		}
		lag[p] = end.Offset - from.Offset
		if at, ok := committed.Lookup(c.topics.Ingest, int32(p)); ok && at.At > from.Offset {
			lag[p] = max(end.Offset-at.At, 0)
		}
	}
	return lag, nil
}
