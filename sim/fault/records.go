package fault

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// records is all of a topic, by partition, in the order of the log.
type records map[int32][]*kgo.Record

// readTopic reads a topic from its first record to where it ends now. A topic whose beginning is gone is
// an error: a fold of the rest would prove nothing.
func readTopic(ctx context.Context, kafka, topic string) (records, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	all := make(records)
	from := make(map[int32]kgo.Offset)
	left := make(map[int32]int64) // end offsets not reached
	ends.Each(func(o kadm.ListedOffset) {
		all[o.Partition] = nil
		if start, _ := starts.Lookup(topic, o.Partition); start.Offset != 0 {
			err = fmt.Errorf("read %s: p%d begins at offset %d", topic, o.Partition, start.Offset)
		}
		if o.Offset > 0 {
			from[o.Partition], left[o.Partition] = kgo.NewOffset().At(0), o.Offset
		}
	})
	if err != nil {
		return nil, err
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read %s: %d partitions not read to their end: %w", topic, len(left), ctx.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			all[r.Partition] = append(all[r.Partition], r)
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return all, nil
}
