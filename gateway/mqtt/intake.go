package mqtt

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

const (
	// maxPayload is the largest payload of the contract.
	maxPayload = 64 << 10
	// maxKept bounds what a dead letter keeps of a payload: more than fits no Kafka record of the
	// usual 1 MiB.
	maxKept = 960 << 10
	// maxBatch bounds the messages of one Deliver.
	maxBatch = 256
)

// sink is where a door's messages go.
type sink struct {
	inlet   Inlet
	refuser Refuser
	reject  Rejecter
	topics  topics
	stats   *Stats
	observe Observer
	log     *slog.Logger
}

func (s *sink) count(kind host.MessageKind) {
	switch kind {
	case host.Telemetry:
		s.stats.Telemetry.Add(1)
	case host.Status:
		s.stats.Status.Add(1)
	case host.Reported:
		s.stats.Reported.Add(1)
	}
}

// objection says why no twin can take a message, or nil.
func objection(kind host.MessageKind, device []byte, size int, boot, seq []byte) *host.DeadLetter {
	if detail := checkDevice(device); detail != "" {
		return &host.DeadLetter{Reason: twin.BadDeviceID, Detail: detail}
	}
	if size > maxPayload {
		detail := fmt.Sprintf("payload has %d bytes, at most %d are allowed", size, maxPayload)
		if size > maxKept {
			detail += fmt.Sprintf("; the first %d are kept", maxKept)
		}
		return &host.DeadLetter{Reason: twin.TooLarge, Detail: detail}
	}
	if kind == host.Reported && seq != nil {
		if _, _, _, err := patchNumber(boot, seq); err != nil {
			return &host.DeadLetter{Reason: twin.NumberRange, Detail: err.Error()}
		}
	}
	return nil
}

// refuse hands a dead letter to the refuser and tells the device, if it can be told.
func (s *sink) refuse(ctx context.Context, d *host.DeadLetter, done func(error)) {
	s.stats.Refused.Add(1)
	if d.Reason != twin.BadDeviceID {
		s.reject.Rejected(d.Device, d.Reason, d.Detail)
	}
	s.refuser.Refuse(ctx, *d, done)
}

// intake turns the PUBLISH packets of one broker connection into messages, batches them and delivers
// them. It belongs to the connection's read goroutine.
type intake struct {
	*sink
	ledger *ledger
	w      io.Writer // the connection the packets come by
	// retainedOnly takes nothing but retained messages, as a sweep does.
	retainedOnly bool
	retained     atomic.Int64 // unix nanoseconds of the last one

	arena arena
	msgs  []host.Message
	ids   []uint16
	first time.Time // when the first of msgs came
	clock int64     // last ReceivedAt given out
}

// take accepts p if it is for us, otherwise it returns false and p is paho's. size is the length of
// the payload as sent: more than was kept, if it is huge.
func (in *intake) take(ctx context.Context, p *publish, size int) (bool, error) {
	device, kind, ok := in.topics.parse(p.topic)
	if !ok || p.qos == 2 { // we ask for QoS 1, so no broker sends 2
		return false, in.flush(ctx)
	}
	if p.retain && kind != host.Status || in.retainedOnly && !p.retain {
		in.stats.Ignored.Add(1)
		if err := in.flush(ctx); err != nil {
			return true, err
		}
		return true, in.ledger.pushDone(in.w, p.id, in.stamp())
	}
	if in.retainedOnly {
		in.retained.Store(time.Now().UnixNano())
	}
	in.count(kind)
	if d := objection(kind, device, size, p.boot, p.seq); d != nil {
		return true, in.refuse(ctx, d, p, device)
	}
	m := host.Message{
		Kind: kind, Device: in.arena.copy(device), Payload: in.arena.copy(p.payload),
		ContentType: contentType(p.contentType), ReceivedAt: in.stamp(), Topic: in.topics.root,
	}
	if kind == host.Reported {
		m.Boot, m.Seq, m.Numbered, _ = patchNumber(p.boot, p.seq) // checked by objection
	}
	if len(in.msgs) == 0 {
		in.first = time.Now()
	}
	in.msgs = append(in.msgs, m)
	in.ids = append(in.ids, p.id)
	if len(in.msgs) >= maxBatch {
		return true, in.flush(ctx)
	}
	return true, nil
}

// stamp returns a time of arrival, one nanosecond apart at least, so that arrival order is order in time.
func (in *intake) stamp() int64 {
	in.clock = max(in.clock+1, time.Now().UnixNano())
	return in.clock
}

func (in *intake) refuse(ctx context.Context, d *host.DeadLetter, p *publish, device []byte) error {
	if err := in.flush(ctx); err != nil {
		return err
	}
	d.Device = string(device)
	d.Payload = append([]byte(nil), p.payload...)
	d.SourceTopic = string(p.topic)
	d.ContentType = contentType(p.contentType)
	d.ReceivedAt = in.stamp()
	r, err := in.ledger.pushRefusal(in.w, d, p.id)
	if err != nil {
		return err
	}
	in.sink.refuse(ctx, r.letter, func(err error) { in.ledger.settle(r.token, err) })
	return ctx.Err()
}

// flush delivers the batch. It blocks while the ledger is full or the inlet does.
func (in *intake) flush(ctx context.Context) error {
	msgs, ids := in.msgs, in.ids
	defer func() {
		clear(in.msgs) // nothing here may pin a slab
		in.msgs, in.ids = in.msgs[:0], in.ids[:0]
	}()
	for len(msgs) > 0 {
		n, err := in.ledger.push(in.w, msgs, ids)
		if err != nil {
			return err
		}
		if err := in.inlet.Deliver(ctx, msgs[:n]); err != nil {
			if ctx.Err() != nil {
				return err
			}
			in.log.WarnContext(ctx, "messages not taken, will be delivered again", "messages", n, "error", err)
			in.ledger.undelivered(msgs[:n])
		}
		in.observe.received(n, time.Since(in.first))
		msgs, ids = msgs[n:], ids[n:]
	}
	return nil
}
