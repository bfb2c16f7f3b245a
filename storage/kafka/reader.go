package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/actors/host"
)

// ErrTruncated is in the chain of the error of a Read that starts before the first record that is
// still there: what it asks for is gone.
var ErrTruncated = errors.New("log is truncated")

// TruncatedError says where the log begins now. It is an ErrTruncated.
type TruncatedError struct {
	Partition   int32
	From, Start int64
}

// Error implements error.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("p%d: offset %d is gone, the log starts at %d", e.Partition, e.From, e.Start)
}

// Is makes errors.Is(err, ErrTruncated) true.
func (e *TruncatedError) Is(target error) bool { return target == ErrTruncated }

// ShortError says that a log ends before a position that was stored for it: it lost its tail, or is
// another one. It is an ErrTruncated.
type ShortError struct {
	Partition int32
	From, End int64
}

// Error implements error.
func (e *ShortError) Error() string {
	return fmt.Sprintf("p%d: offset %d is gone, the log ends at %d", e.Partition, e.From, e.End)
}

// Is makes errors.Is(err, ErrTruncated) true.
func (e *ShortError) Is(target error) bool { return target == ErrTruncated }

// Offsets of a ListOffsets request that stand for an end of the log.
const (
	listStart     = -2
	listEnd       = -1
	listCommitted = -11 // the end of what is certain: an open transaction lies behind it
)

// Bounds implements host.Log.
func (l *Log) Bounds(ctx context.Context, p int32) (start, end int64, err error) {
	if start, err = l.c.offset(ctx, l.topic, p, listStart); err != nil {
		return 0, 0, err
	}
	end, err = l.c.offset(ctx, l.topic, p, listEnd)
	return start, end, err
}

// OffsetAt is the offset of the first record of partition p that was written at a time (unix nanoseconds) or
// later by its writer's clock; the end of the log if there is none. The broker knows milliseconds.
func (l *Log) OffsetAt(ctx context.Context, p int32, at int64) (int64, error) {
	offset, err := l.c.offset(ctx, l.topic, p, max(at/1e6, 0))
	if err != nil || offset >= 0 {
		return offset, err
	}
	return l.c.offset(ctx, l.topic, p, listEnd)
}

// offset asks the leader of a partition for one offset. An acknowledged record is below the end: with
// acks=all the broker answers only when all replicas in sync have it.
func (c *Client) offset(ctx context.Context, topic string, p int32, which int64) (int64, error) {
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp = p, which
	if which == listCommitted {
		rp.Timestamp = listEnd
	}
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rt.Partitions = append(rt.Partitions, rp)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, rt)
	if which == listCommitted {
		req.IsolationLevel = 1
	}

	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return 0, fmt.Errorf("offsets of %s p%d: %w", topic, p, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("offsets of %s p%d: answer is for other partitions", topic, p)
	}
	got := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return 0, fmt.Errorf("offsets of %s p%d: %w", topic, p, err)
	}
	return got.Offset, nil
}

// Read implements host.Log. It fetches ahead of fn, on connections of its own, so that reads of
// several partitions do not wait for each other nor for the producer.
func (l *Log) Read(ctx context.Context, p int32, from, to int64, fn func(host.LogRecord) error) error {
	if from >= to {
		return nil
	}
	cl, err := kgo.NewClient(l.c.cfg.connection()...)
	if err != nil {
		return fmt.Errorf("read p%d: %w", p, err)
	}
	defer cl.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	f := &fetcher{cl: cl, topic: l.topic, partition: p}
	chunks := make(chan chunk)
	go f.run(ctx, from, to, chunks)
	for {
		select {
		case c, ok := <-chunks:
			if !ok {
				return nil
			}
			if c.err != nil {
				return fmt.Errorf("read p%d: %w", p, c.err)
			}
			if err := eachRecord(c.batches, from, to, fn); err != nil {
				return fmt.Errorf("read p%d: %w", p, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("read p%d: %w", p, ctx.Err())
		case <-l.closed:
			return fmt.Errorf("read p%d: %w", p, ErrClosed)
		}
	}
}
