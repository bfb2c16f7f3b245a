package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// alertsWait bounds a fetch of doppel.alerts while no transition comes.
const alertsWait = 2 * time.Second

// Identity names this topic: places in it mean nothing in one that was made anew.
func (a *AlertLog) Identity(ctx context.Context) (string, error) {
	topic := a.out.c.topics.Alerts
	details, err := a.out.c.adm.ListTopics(ctx, topic)
	if err != nil {
		return "", fmt.Errorf("identity of %s: %w", topic, err)
	}
	t := details[topic]
	if t.Err != nil {
		return "", fmt.Errorf("identity of %s: %w", topic, t.Err)
	}
	return fmt.Sprintf("%s %x", topic, t.ID[:]), nil
}

// Bounds are, by partition, the first offset still there and the offset behind the last.
func (a *AlertLog) Bounds(ctx context.Context) (start, end []int64, err error) {
	c := a.out.c
	if start, err = c.offsets(ctx, c.topics.Alerts, c.adm.ListStartOffsets); err != nil {
		return nil, nil, err
	}
	end, err = c.offsets(ctx, c.topics.Alerts, c.adm.ListEndOffsets)
	return start, end, err
}

// offsets asks for one offset of every partition of a topic.
func (c *Client) offsets(ctx context.Context, topic string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) ([]int64, error) {
	got, err := list(ctx, topic)
	if err == nil {
		err = got.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", topic, err)
	}
	offsets := make([]int64, c.cfg.Partitions)
	for p := range offsets {
		o, ok := got.Lookup(topic, int32(p))
		if !ok {
			return nil, fmt.Errorf("offsets of %s: p%d is missing", topic, p)
		}
		offsets[p] = o.Offset
	}
	return offsets, nil
}

// Read calls fn with what stands at from <= offset < to of each partition, in the order of each, and
// returns when it has come to the ends. host.ErrNotRetained: some of it is gone.
func (a *AlertLog) Read(ctx context.Context, from, to []int64, fn func(host.Published) error) error {
	at, left := make(map[int32]int64), make(map[int32]int64)
	for p := range from {
		if from[p] < to[p] {
			at[int32(p)], left[int32(p)] = from[p], to[p]
		}
	}
	if len(left) == 0 {
		return nil
	}
	err := a.Tail(ctx, at, func(t host.Published) error {
		end, unread := left[t.Partition]
		if unread && t.At < end && t.Alert != nil {
			if err := fn(t); err != nil {
				return err
			}
		}
		if t.At >= end-1 {
			delete(left, t.Partition)
		}
		if len(left) == 0 {
			return errRead
		}
		return nil
	})
	if errors.Is(err, errRead) {
		return nil
	}
	return err
}

// errRead is that all was read.
var errRead = errors.New("read to the ends")

// Follow calls fn with what stands in all partitions from the offsets given on, as it comes, until
// ctx ends or fn fails. host.ErrNotRetained: the log begins behind one of them, or ends before it.
func (a *AlertLog) Follow(ctx context.Context, from []int64, fn func(host.Published) error) error {
	at := make(map[int32]int64, len(from))
	for p, offset := range from {
		at[int32(p)] = offset
	}
	return a.Tail(ctx, at, func(t host.Published) error {
		if t.Alert == nil {
			return nil
		}
		return fn(t)
	})
}

// Tail calls fn with what stands in some partitions, from the offset given of each, as it comes, until ctx
// ends or fn fails. Where it is nothing of ours Alert is nil, so that every offset is seen to be passed.
// host.ErrNotRetained: the log begins behind one of the offsets, or ends before it.
func (a *AlertLog) Tail(ctx context.Context, from map[int32]int64, fn func(host.Published) error) error {
	topic := a.out.c.topics.Alerts
	at := make(map[int32]kgo.Offset, len(from))
	for p, offset := range from {
		at[p] = kgo.NewOffset().At(offset)
	}
	cl, err := kgo.NewClient(append(a.out.c.cfg.connection(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(alertsWait))...)
	if err != nil {
		return fmt.Errorf("read alerts: %w", err)
	}
	defer closeConsumer(cl, topic, slices.Collect(maps.Keys(at)))
	for {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fs.Errors() {
			if err := consumeError(e.Err); err != nil {
				return fmt.Errorf("read alerts p%d: %w", e.Partition, err)
			}
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			t, ok := published(r)
			if !ok {
				t = host.Published{Partition: r.Partition, At: r.Offset}
			}
			if err := fn(t); err != nil {
				return err
			}
		}
	}
}

// consumeError is nil for what the consumer outlasts by itself.
func consumeError(err error) error {
	var lost *kgo.ErrDataLoss
	switch ke := (*kerr.Error)(nil); {
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		return fmt.Errorf("%w: %w", host.ErrNotRetained, err)
	case errors.As(err, &ke) && ke.Retriable:
		return nil
	default:
		return err
	}
}

// published reads a record; false for what no node wrote.
func published(r *kgo.Record) (t host.Published, ok bool) {
	if r.Attrs.IsControl() {
		return t, false
	}
	for _, h := range r.Headers {
		if h.Key != headerPos {
			continue
		}
		parts := strings.Split(string(h.Value), ":")
		if len(parts) != 3 {
			return t, false
		}
		p, err1 := strconv.ParseInt(parts[0], 10, 32)
		offset, err2 := strconv.ParseInt(parts[1], 10, 64)
		index, err3 := strconv.ParseInt(parts[2], 10, 32)
		if errors.Join(err1, err2, err3) != nil || int32(p) != r.Partition || offset < 0 || index < 0 {
			return t, false
		}
		alert := &doppelv1.Alert{}
		if proto.Unmarshal(r.Value, alert) != nil {
			return t, false
		}
		return host.Published{Partition: r.Partition, At: r.Offset, Offset: offset, Index: int(index), Alert: alert}, true
	}
	return t, false
}
