package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// ErrClosed answers records handed to a closed Client.
var ErrClosed = errors.New("log is closed")

// Log is a topic as actors/host wants it: doppel.telemetry or doppel.state. A record costs no
// allocation once the slots of its partition are there.
type Log struct {
	c       *Client
	cl      *kgo.Client // produces
	topic   string
	lanes   []lane
	promise func(*kgo.Record, error) // answered, bound once: a closure for each record would be garbage
	closed  chan struct{}
	limit   int // of unanswered records in a lane
}

var _ host.Log = (*Log)(nil)

func newLog(c *Client, cl *kgo.Client, topic string) *Log {
	l := &Log{c: c, cl: cl, topic: topic, lanes: make([]lane, c.cfg.Partitions), closed: make(chan struct{}), limit: c.cfg.InFlight}
	l.promise = l.answered
	for p := range l.lanes {
		l.lanes[p].room = make(chan struct{}, 1)
	}
	return l
}

// Append implements host.Log. It blocks while the partition has as many unacknowledged records
// as it may. When ctx ends before that is over, none of recs is written and all are answered with its
// error: a part of a batch would be a hole in the count.
func (l *Log) Append(ctx context.Context, p int32, recs []host.Record, acks host.Acks) {
	if len(recs) == 0 {
		return
	}
	ln := &l.lanes[p]
	if err := ln.enter(ctx, l.limit, l.closed); err != nil {
		ln.refuse(recs, acks, fmt.Errorf("append p%d: %w", p, err))
		return
	}
	// Outside the lane's lock, which answers need. Slots not produced yet cannot be answered, so the
	// links up to our last one stay as they are; that one's link belongs to the next Append.
	now := time.Now()
	s := ln.queue(recs, acks)
	for i := range recs {
		next := s
		if i+1 < len(recs) {
			next = s.next
		}
		s.rec = kgo.Record{
			Context: s, Topic: l.topic, Partition: p,
			Key: recs[i].Key, Value: recs[i].Value, Timestamp: now,
		}
		l.cl.Produce(context.Background(), &s.rec, l.promise) //nolint:contextcheck // what is handed over is not taken back
		s = next
	}
}

// answered is the promise of every record.
func (l *Log) answered(r *kgo.Record, err error) {
	s, ok := r.Context.(*slot)
	if !ok {
		return // not ours: nothing but Append uses this promise
	}
	offset := r.Offset // -1 without an error: the broker took it for a duplicate it cannot place
	if err != nil {
		offset, err = -1, fmt.Errorf("append p%d: %w", r.Partition, err)
	}
	s.lane.answer(s, offset, err)
}

// stalledAfter is how long a record may wait for its acknowledgement before something is wrong.
const stalledAfter = 5 * time.Second

// Healthy returns nil unless records wait for their acknowledgement for longer than 5 s.
func (l *Log) Healthy() error {
	var longest time.Duration
	var worst int
	for p := range l.lanes {
		if since, waits := l.lanes[p].oldest(); waits {
			if d := time.Since(since); d > longest {
				longest, worst = d, p
			}
		}
	}
	if longest <= stalledAfter {
		return nil
	}
	return fmt.Errorf("%s p%d has not acknowledged a record for %v", l.topic, worst, longest.Round(time.Second))
}

// close makes every further and every blocked Append fail.
func (l *Log) close() { close(l.closed) }

// drained returns when every record is answered.
func (l *Log) drained() {
	for p := range l.lanes {
		<-l.lanes[p].quiet()
	}
}
