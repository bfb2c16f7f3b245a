package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	fetchBytes = 4 << 20 // of one answer: large, a restore reads gigabytes; two are held at a time
	fetchWait  = 250 * time.Millisecond
	fetchRetry = 50 * time.Millisecond // between attempts while a partition has no leader
)

// fetcher reads one partition with plain fetch requests. The consumer of the client library is not
// used because it makes an object of each record, and because it does not say where it stands when
// the last offsets asked for hold no record (a transaction's marker, a batch emptied by compaction).
type fetcher struct {
	cl        *kgo.Client
	topic     string
	partition int32

	leader *kgo.Broker // nil: look it up
	id     [16]byte
}

// chunk is whole record batches as fetched, or what ended the fetching.
type chunk struct {
	batches []byte
	err     error
}

// run sends chunks until everything below to was sent, and then closes the channel; or until ctx ends.
func (f *fetcher) run(ctx context.Context, from, to int64, out chan<- chunk) {
	for next := from; next < to; {
		var c chunk
		c.batches, c.err = f.fetch(ctx, next)
		if c.err == nil {
			if len(c.batches) == 0 {
				continue // nothing there yet
			}
			c.batches, next, c.err = wholeBatches(c.batches)
		}
		select {
		case out <- c:
		case <-ctx.Done():
			return
		}
		if c.err != nil {
			return
		}
	}
	close(out)
}

// fetch asks once for what is at next, and again as long as the failure may pass.
func (f *fetcher) fetch(ctx context.Context, next int64) ([]byte, error) {
	for {
		b, err := f.try(ctx, next)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !passing(err) {
			return nil, err
		}
		f.leader = nil
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(fetchRetry):
		}
	}
}

// passing tells errors that a fetch may outlast: the network's, and those of a partition on the move.
func passing(err error) bool {
	if ke := (*kerr.Error)(nil); errors.As(err, &ke) {
		return ke.Retriable
	}
	return !errors.Is(err, ErrTruncated) && !errors.Is(err, kgo.ErrClientClosed)
}

// bounds asks for the first offset and the one behind the last, and again as long as the failure may pass.
func (f *fetcher) bounds(ctx context.Context) (start, end int64, err error) {
	c := &Client{cl: f.cl}
	for {
		start, err = c.offset(ctx, f.topic, f.partition, listStart)
		if err == nil {
			end, err = c.offset(ctx, f.topic, f.partition, listEnd)
		}
		switch {
		case err == nil:
			return start, end, nil
		case ctx.Err() != nil:
			return 0, 0, ctx.Err()
		case !passing(err):
			return 0, 0, err
		}
		if err := rest(ctx, fetchRetry); err != nil {
			return 0, 0, err
		}
	}
}

func (f *fetcher) try(ctx context.Context, next int64) ([]byte, error) {
	if f.leader == nil {
		if err := f.find(ctx); err != nil {
			return nil, err
		}
	}
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = f.partition, next, fetchBytes
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = f.topic, f.id
	rt.Partitions = append(rt.Partitions, rp)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait.Milliseconds()), 1, fetchBytes
	req.Topics = append(req.Topics, rt)

	kresp, err := f.leader.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := kresp.(*kmsg.FetchResponse)
	if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		if ok && resp.ErrorCode != 0 {
			return nil, kerr.ErrorForCode(resp.ErrorCode)
		}
		return nil, kerr.UnknownServerError
	}
	got := &resp.Topics[0].Partitions[0]
	switch err := kerr.ErrorForCode(got.ErrorCode); {
	case err == nil:
		return got.RecordBatches, nil
	case errors.Is(err, kerr.OffsetOutOfRange):
		return nil, f.outOfRange(ctx, next)
	default:
		return nil, err
	}
}

// outOfRange tells a log that lost its beginning from one that does not reach so far (yet: another
// replica may have become the leader before it knew the newest high watermark).
func (f *fetcher) outOfRange(ctx context.Context, next int64) error {
	start, err := (&Client{cl: f.cl}).offset(ctx, f.topic, f.partition, listStart)
	if err != nil {
		return err
	}
	if next < start {
		return &TruncatedError{Partition: f.partition, From: next, Start: start}
	}
	return kerr.OffsetNotAvailable // retriable
}

func (f *fetcher) find(ctx context.Context) error {
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &f.topic
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, f.cl)
	if err != nil {
		return err
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
		for j := range t.Partitions {
			if p := &t.Partitions[j]; p.Partition == f.partition {
				if p.Leader < 0 {
					return kerr.LeaderNotAvailable
				}
				f.id, f.leader = t.TopicID, f.cl.Broker(int(p.Leader))
				return nil
			}
		}
	}
	return fmt.Errorf("%s has no partition %d: %w", f.topic, f.partition, kerr.UnknownTopicOrPartition)
}
