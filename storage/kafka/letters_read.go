package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// headerRedriven marks a record of doppel.dlq that is no letter: it says that the letter of this id
// was sent again. Its key is the letter's, its value empty.
const headerRedriven = "redriven"

// Letters reads doppel.dlq and sends its letters again (letters_redrive.go). That a letter was sent
// again stands in the log itself, so every node knows it, after any crash.
//
// It keeps a bit for every record of the topic.
type Letters struct {
	c *Client

	reading sync.Mutex // held while the markers are caught up with
	read    int64      // markers below are known

	mu       sync.Mutex
	redriven offsetSet
}

// Letters returns a reader of doppel.dlq. Make one and share it: each has to read all markers once.
func (c *Client) Letters() *Letters { return &Letters{c: c} }

// Bounds are the offsets of the oldest letter and behind the newest.
func (l *Letters) Bounds(ctx context.Context) (start, end int64, err error) {
	if start, err = l.c.offset(ctx, l.c.topics.DLQ, 0, listStart); err != nil {
		return 0, 0, err
	}
	end, err = l.c.offset(ctx, l.c.topics.DLQ, 0, listEnd)
	return start, end, err
}

// Scan calls fn with each letter of from <= offset < to that is still there, in order. Whether it was
// sent again is as known when Scan was called.
func (l *Letters) Scan(ctx context.Context, from, to int64, fn func(*doppelv1.DeadLetter) error) error {
	if err := l.catchUp(ctx); err != nil {
		return err
	}
	return l.each(ctx, from, to, func(r *kgo.Record) error {
		if _, marker := mark(r); marker {
			return nil
		}
		return fn(letter(r, l.wasRedriven(r.Offset)))
	})
}

// catchUp reads the markers that came since the last time.
func (l *Letters) catchUp(ctx context.Context) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	start, end, err := l.Bounds(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if end < l.read { // another topic of this name
		l.read, l.redriven = 0, offsetSet{}
	}
	l.redriven.forget(start)
	l.mu.Unlock()
	return l.each(ctx, max(l.read, start), end, func(r *kgo.Record) error {
		if at, ok := mark(r); ok && at < r.Offset {
			l.noteRedriven(at)
		}
		l.read = r.Offset + 1
		return nil
	})
}

func (l *Letters) wasRedriven(offset int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.redriven.has(offset)
}

func (l *Letters) noteRedriven(offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.redriven.add(offset)
}

// each calls fn with the records of from <= offset < to, but for those that expired.
func (l *Letters) each(ctx context.Context, from, to int64, fn func(*kgo.Record) error) error {
	for {
		err := l.fetch(ctx, from, to, fn)
		var gone *TruncatedError
		if !errors.As(err, &gone) || gone.Start <= from {
			return err
		}
		from = gone.Start // what expired meanwhile is nobody's letter any more
	}
}

// fetch reads on a connection of its own.
func (l *Letters) fetch(ctx context.Context, from, to int64, fn func(*kgo.Record) error) error {
	if from >= to {
		return nil
	}
	cl, err := kgo.NewClient(l.c.cfg.connection()...)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks := make(chan chunk)
	go (&fetcher{cl: cl, topic: l.c.topics.DLQ}).run(ctx, from, to, chunks)
	for {
		select {
		case c, ok := <-chunks:
			if !ok {
				return nil
			}
			if c.err != nil {
				return fmt.Errorf("read dead letters: %w", c.err)
			}
			part := kmsg.FetchResponseTopicPartition{RecordBatches: c.batches, HighWatermark: math.MaxInt64}
			got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from, Topic: l.c.topics.DLQ}, &part, kgo.DefaultDecompressor(), nil)
			if got.Err != nil {
				return fmt.Errorf("read dead letters: %w", got.Err)
			}
			for _, r := range got.Records {
				if r.Offset >= to {
					return nil
				}
				if err := fn(r); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("read dead letters: %w", ctx.Err())
		case <-l.c.log.closed:
			return fmt.Errorf("read dead letters: %w", ErrClosed)
		}
	}
}

// mark is the offset of the letter that a marker is about, -1 for one of none.
func mark(r *kgo.Record) (offset int64, ok bool) {
	for _, h := range r.Headers {
		if h.Key == headerRedriven {
			return letterOffset(string(h.Value)), true
		}
	}
	return 0, false
}

// letterID names a letter to people: the topic has one partition.
func letterID(offset int64) string { return "0-" + strconv.FormatInt(offset, 10) }

// letterOffset is -1 for what names no letter.
func letterOffset(id string) int64 {
	digits, ok := strings.CutPrefix(id, "0-")
	offset, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil {
		return -1
	}
	return offset
}

// letter is a record of doppel.dlq as the API shows it.
func letter(r *kgo.Record, redriven bool) *doppelv1.DeadLetter {
	l := &doppelv1.DeadLetter{
		Id: letterID(r.Offset), Device: text(r.Key), Payload: r.Value, ReceiveTime: timestamppb.New(r.Timestamp), Redriven: redriven,
	}
	for _, h := range r.Headers {
		v := text(h.Value)
		switch h.Key {
		case "reason":
			l.Reason = v
		case "detail":
			l.Detail = v
		case "source-topic":
			l.SourceTopic = v
		case headerContentType:
			l.ContentType = v
		case headerReceivedAt:
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil && inNanos(t) {
				l.ReceiveTime = timestamppb.New(t)
			}
		case "node":
			l.Node = v
		case headerAttempts:
			n, _ := strconv.ParseUint(v, 10, 32) // anything else: 0
			l.Attempts = uint32(n)
		case "truncated-from":
			l.TruncatedFrom, _ = strconv.ParseUint(v, 10, 64)
		}
	}
	return l
}

// text is what may stand in a protobuf string: names that came from outside need not be UTF-8.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\ufffd") }

// offsetSet is a set of offsets: a bit each, from the first word that is not forgotten.
type offsetSet struct {
	base  int64 // offset of the first bit, a multiple of 64
	words []uint64
}

func (s *offsetSet) add(offset int64) {
	if offset < s.base {
		return
	}
	i := int((offset - s.base) / 64)
	if i >= len(s.words) {
		s.words = append(s.words, make([]uint64, i+1-len(s.words))...)
	}
	s.words[i] |= 1 << (offset % 64)
}

func (s *offsetSet) has(offset int64) bool {
	i := (offset - s.base) / 64
	return offset >= s.base && i < int64(len(s.words)) && s.words[i]&(1<<(offset%64)) != 0
}

// forget drops what lies below the oldest record, by whole words.
func (s *offsetSet) forget(below int64) {
	drop := below/64 - s.base/64
	if drop <= 0 {
		return
	}
	s.base += drop * 64
	s.words = append([]uint64(nil), s.words[min(drop, int64(len(s.words))):]...)
}
