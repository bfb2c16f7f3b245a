package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"

	"github.com/doppel-iot/doppel/actors/host"
)

// ingestInFlight is the most bytes of a partition that wait for their acknowledgement, a record
// counting ingestOverhead more than its payload.
const (
	ingestInFlight = 8 << 20
	ingestOverhead = 512
)

// Ingest is doppel.ingest: raw messages by the partition of their device, a record's key.
type Ingest struct {
	c     *Client
	topic string
	rooms []*semaphore.Weighted // by partition
	tails *tails
}

var _ host.Ingest = (*Ingest)(nil)

func newIngest(c *Client) *Ingest {
	in := &Ingest{c: c, topic: c.topics.Ingest, rooms: make([]*semaphore.Weighted, c.cfg.Partitions)}
	for p := range in.rooms {
		in.rooms[p] = semaphore.NewWeighted(ingestInFlight)
	}
	in.tails = newTails(&c.cfg, in.topic)
	return in
}

// Bounds implements host.Ingest. Records of a transaction that is still open lie behind the end.
func (in *Ingest) Bounds(ctx context.Context, p int32) (start, end int64, err error) {
	if start, err = in.c.offset(ctx, in.topic, p, listStart); err != nil {
		return 0, 0, err
	}
	end, err = in.c.offset(ctx, in.topic, p, listCommitted)
	return start, end, err
}

// Ends are, by partition, the offsets behind the last record.
func (in *Ingest) Ends(ctx context.Context) ([]int64, error) {
	return in.c.offsets(ctx, in.topic, in.c.adm.ListEndOffsets)
}

// Append implements host.Ingest. It blocks while the partition has as much on its way as it may; when
// ctx ends meanwhile the message is not written.
func (in *Ingest) Append(ctx context.Context, p int32, m *host.Message, done func(error)) {
	in.append(ctx, p, m, done)
}

// append is Append with headers besides the message's own.
func (in *Ingest) append(ctx context.Context, p int32, m *host.Message, done func(error), more ...kgo.RecordHeader) {
	weight := min(int64(len(m.Payload))+ingestOverhead, ingestInFlight)
	if err := in.enter(ctx, p, weight); err != nil {
		go done(fmt.Errorf("ingest p%d: %w", p, err))
		return
	}
	r := &kgo.Record{Topic: in.topic, Partition: p, Value: m.Payload, Headers: append(in.headers(m), more...)}
	if len(m.Device) > 0 {
		r.Key = m.Device
	}
	// Once handed over it must not be taken back: its neighbours would go with it.
	in.c.side.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
		in.rooms[p].Release(weight)
		if err != nil {
			err = fmt.Errorf("ingest p%d: %w", p, err)
		}
		done(err)
	})
}

// enter waits for room. A Client that is closed answers all it has, so there is room then.
func (in *Ingest) enter(ctx context.Context, p int32, weight int64) error {
	if err := in.rooms[p].Acquire(ctx, weight); err != nil {
		return err
	}
	select {
	case <-in.c.log.closed:
		in.rooms[p].Release(weight)
		return ErrClosed
	default:
		return nil
	}
}

// Follow implements host.Ingest. A partition is followed by one at a time: a second call waits until
// the first has ended. What take gets shares memory with the rest of its fetch, up to 1 MiB.
//
// A record whose Message.Kind is 0 holds no message, only an offset: a transaction ended there.
func (in *Ingest) Follow(ctx context.Context, p int32, from int64, take func([]host.IngestRecord) error) error {
	f, err := in.tails.join(ctx, p, from)
	if err != nil {
		return fmt.Errorf("follow ingest p%d: %w", p, err)
	}
	defer in.tails.leave(f)
	for since := time.Now(); ; since = time.Now() {
		for {
			err := in.reachable(ctx, p, f.position(), since)
			if err == nil {
				break
			}
			if ctx.Err() != nil || final(err) {
				return fmt.Errorf("follow ingest p%d: %w", p, err)
			}
			if err := rest(ctx, fetchRetry); err != nil {
				return fmt.Errorf("follow ingest p%d: %w", p, err)
			}
		}
		in.tails.start(f)
		err := in.drain(ctx, f, take)
		if ctx.Err() != nil || final(err) {
			return fmt.Errorf("follow ingest p%d: %w", p, err)
		}
		in.c.cfg.Logger.Warn("ingest is followed anew", "partition", p, "offset", f.position(), "error", err)
		if err := rest(ctx, fetchRetry); err != nil {
			return fmt.Errorf("follow ingest p%d: %w", p, err)
		}
	}
}

// drain hands over what comes until something ends it, which is never nil.
func (in *Ingest) drain(ctx context.Context, f *follower, take func([]host.IngestRecord) error) error {
	for {
		rs, err := f.next(ctx)
		if err != nil {
			return err
		}
		got := make([]host.IngestRecord, len(rs))
		for i, r := range rs {
			got[i] = in.record(r)
		}
		if err := take(got); err != nil {
			return takeError{err}
		}
		in.tails.taken(f, rs)
	}
}

// takeError keeps what take returned from being taken for a failure of the log, which may pass.
type takeError struct{ error }

func (e takeError) Unwrap() error { return e.error }

// final tells what ends a Follow from what it outlasts.
func final(err error) bool {
	var lost *kgo.ErrDataLoss
	return errors.As(err, new(takeError)) || errors.As(err, &lost) || errors.Is(err, ErrClosed) || !passing(err)
}

// reachable says whether the log can be read from offset at: it refuses what lies below its start
// (rule G5), and above its end if it stays so: a log that lost its tail would give offsets anew, and
// their records would pass for handled.
func (in *Ingest) reachable(ctx context.Context, p int32, at int64, since time.Time) error {
	start, err := in.c.offset(ctx, in.topic, p, listStart)
	if err != nil {
		return err
	}
	end, err := in.c.offset(ctx, in.topic, p, listEnd)
	if err != nil {
		return err
	}
	switch {
	case at < start:
		return &TruncatedError{Partition: p, From: at, Start: start}
	case at > end && time.Since(since) < endPatience:
		return fmt.Errorf("p%d ends at %d, before %d", p, end, at) // a new leader may not know its end yet
	case at > end:
		return &ShortError{Partition: p, From: at, End: end}
	}
	return nil
}

// rest waits, or returns why ctx ended.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
