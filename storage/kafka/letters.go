package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

const (
	// lettersInFlight bounds dead letters, and alerts, that wait for the log.
	lettersInFlight = 4096
	// letterBytes is the most of a refused message that is kept: a record must fit the broker's
	// default limit of 1 MiB, and a refused message may be of any size.
	letterBytes = 900 << 10
)

// DeadLetters is doppel.dlq.
type DeadLetters struct{ out *outbox }

var _ host.DeadLetters = (*DeadLetters)(nil)

// Put implements host.DeadLetters. It blocks while too many letters are on their way; when ctx ends
// meanwhile, the letter is not written. A message too large for a record is cut, and the header
// "truncated-from" then tells its size.
func (d *DeadLetters) Put(ctx context.Context, l host.DeadLetter, done func(error)) {
	payload := l.Payload
	headers := make([]kgo.RecordHeader, 0, 8)
	headers = append(headers,
		header("reason", string(l.Reason)),
		header("detail", l.Detail),
		header("source-topic", l.SourceTopic),
		header("content-type", l.ContentType),
		header("received-at", timeText(l.ReceivedAt)),
		header("node", l.Node),
		header("attempts", strconv.Itoa(l.Attempts)))
	if len(payload) > letterBytes {
		headers = append(headers, header("truncated-from", strconv.Itoa(len(payload))))
		payload = payload[:letterBytes]
	}
	r := &kgo.Record{Topic: d.out.c.topics.DLQ, Value: payload, Headers: headers}
	if l.Device != "" {
		r.Key = []byte(l.Device)
	}
	d.out.put(ctx, r, "dead letter", done)
}

func header(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }

// timeText writes unix nanoseconds as a header does: RFC 3339, UTC.
func timeText(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// outbox writes single records, a bounded number at a time.
type outbox struct {
	c    *Client
	gate chan struct{}
}

func newOutbox(c *Client) *outbox { return &outbox{c: c, gate: make(chan struct{}, lettersInFlight)} }

// put calls done once, from another goroutine.
func (o *outbox) put(ctx context.Context, r *kgo.Record, what string, done func(error)) {
	select {
	case o.gate <- struct{}{}:
	case <-ctx.Done():
		go done(fmt.Errorf("%s: %w", what, ctx.Err()))
		return
	case <-o.c.log.closed:
		go done(fmt.Errorf("%s: %w", what, ErrClosed))
		return
	}
	// Once handed over it must not be taken back: its neighbours would go with it.
	o.c.side.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
		<-o.gate
		if err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		}
		done(err)
	})
}
