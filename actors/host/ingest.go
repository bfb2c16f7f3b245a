package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

const (
	// ingestTurn bounds the records of doppel.ingest that one turn handles, so that the fast path gets
	// its share.
	ingestTurn = 512
	// ingestRetry is the pause after a dead letter or a move that could not be written.
	ingestRetry = 200 * time.Millisecond
)

// feed is doppel.ingest on its way into the partition (rule G2): one record after another, in order.
// Where a record must wait for a dead letter or for its move to another partition, all behind it wait,
// so src_next never passes anything that is not durable elsewhere.
type feed struct {
	in      chan []IngestRecord
	queue   []IngestRecord // not handled yet
	stalled bool
	target  int64 // end of ingest as of the claim
	settled bool  // everything below target is handled (P2)
}

// follow starts to read ingest from src_next on, until ctx ends.
func (o *owner) follow(ctx context.Context) error {
	f := &o.feed
	start, end, err := o.host.cfg.Ingest.Bounds(ctx, o.p.id)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	if lost := start - int64(o.src.Offset); lost > 0 { // G5
		o.log.Error("doppel.ingest lost records that no twin has seen: its retention is shorter than this partition was down",
			"from", o.src.Offset, "start", start, "records", lost)
		o.host.stats.IngestLost.Add(uint64(lost))
		o.src = codec.Position{Offset: uint64(start)}
	}
	f.in, f.target = make(chan []IngestRecord, 1), end
	from := int64(o.src.Offset)
	o.host.cfg.Beside.Go(func() {
		err := o.host.cfg.Ingest.Follow(ctx, o.p.id, from, func(recs []IngestRecord) error {
			select {
			case f.in <- recs:
				o.p.box.signal()
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() == nil {
			o.p.box.call(func(current *owner) {
				if current == o {
					o.stopped = fmt.Errorf("follow ingest: %w", errors.Join(err, errFeed))
				}
			})
		}
	})
	return nil
}

// takeIngest handles what waits in the feed.
func (o *owner) takeIngest(ctx context.Context) {
	f := &o.feed
	for range ingestTurn {
		if f.stalled || o.restart || o.full() {
			return
		}
		if len(f.queue) == 0 {
			select {
			case f.queue = <-f.in:
				o.followRules()
			default:
				return
			}
		}
		r := &f.queue[0]
		if uint64(r.Offset) >= o.src.Offset {
			o.ingest(ctx, r)
		}
		if uint64(r.Offset) < o.src.Offset { // done with it
			*r = IngestRecord{}
			if f.queue = f.queue[1:]; len(f.queue) == 0 {
				o.p.box.signal() // there may be more in the channel
			}
		}
	}
	o.p.box.signal()
}

// ingest handles one record, or the rest of it, as far as it can be.
func (o *owner) ingest(ctx context.Context, r *IngestRecord) {
	m, behind := &r.Message, codec.Position{Offset: uint64(r.Offset) + 1}
	switch {
	case m.Kind == 0: // no message: a marker of a transaction
		o.src = behind
		return
	case r.Home >= 0 && r.Home != o.p.id:
		o.move(ctx, r, behind)
		return
	case len(m.Device) == 0:
		o.divert(ctx, m, &codec.Refusal{Reason: twin.MissingKey, Detail: "the record has no key; send the device id as key"}, 1, behind)
		return
	case !codec.ValidDevice(m.Device):
		o.divert(ctx, m, &codec.Refusal{
			Reason: twin.BadDeviceID, Detail: fmt.Sprintf("the key %.140q is no device id: 1-128 of A-Z a-z 0-9 . _ : @ -", m.Device),
		}, 1, behind)
		return
	}
	c := o.find(string(m.Device))
	switch m.Kind {
	case Telemetry:
		o.ingestTelemetry(ctx, r, c, behind)
	case Status, Reported:
		o.ingestSingle(ctx, m, c, behind)
	}
}

// ingestTelemetry goes on where an earlier owner, or a wait for a dead letter, left the message.
func (o *owner) ingestTelemetry(ctx context.Context, r *IngestRecord, c *cell, behind codec.Position) {
	m := &r.Message
	items, refusal := o.dec.Telemetry(m.ContentType, m.Payload, m.ReceivedAt)
	first := 0
	if o.src.Offset == uint64(r.Offset) {
		first = int(o.src.Index)
	}
	left := len(items) - first
	switch {
	case refusal != nil:
		o.divert(ctx, m, refusal, 1, behind)
		return
	case c == nil && o.host.cfg.RefuseUnknown:
		o.divert(ctx, m, unknownDevice(left), left, behind)
		return
	case c != nil && c.quarantined:
		o.divert(ctx, m, quarantined(left), left, behind)
		return
	}
	if first == 0 {
		o.ingested(m)
	}
	for i := first; i < len(items); i++ {
		before, next := o.src, codec.Position{Offset: uint64(r.Offset), Index: uint32(i + 1)}
		if i+1 == len(items) {
			next = behind
		}
		refusal := items[i].Refusal
		if refusal == nil {
			o.receive(1)
			o.event.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: m.ReceivedAt, Sample: items[i].Sample}
			o.src = next
			if c, _, refusal = o.input(m, c, nil); refusal != nil {
				o.sendBack(1)
			}
		}
		if refusal != nil {
			o.src = before
			o.divert(ctx, m, refusal, 1, next)
			return
		}
	}
	o.src = behind // also where the message had no samples left
}

func (o *owner) ingested(m *Message) {
	o.host.stats.Ingested.Add(1) // first: it is part of the other
	o.host.stats.Messages[m.Kind].Add(1)
}

func (o *owner) ingestSingle(ctx context.Context, m *Message, c *cell, behind codec.Position) {
	o.ingested(m)
	says, refusal := o.read(m)
	before := o.src
	o.src = behind
	switch {
	case refusal != nil:
	case c != nil && c.quarantined:
		refusal = quarantined(1)
	case says:
		_, _, refusal = o.input(m, c, nil)
	}
	if refusal != nil {
		o.src = before
		o.divert(ctx, m, refusal, 1, behind)
	}
}

// divert sends a record of ingest, or one sample of it, to the dead letters and goes on behind it when
// that is durable (G3).
func (o *owner) divert(ctx context.Context, m *Message, r *codec.Refusal, samples int, behind codec.Position) {
	o.receive(samples)
	device, receivedAt, refusal := string(m.Device), m.ReceivedAt, *r
	o.wait(func(done func(error)) {
		o.host.cfg.DeadLetters.Put(ctx, o.letter(m, r), done)
	}, func(err error) {
		if err != nil {
			o.log.Error("dead letter not written", "device_id", device, "err", err)
			o.sendBack(samples)
			return
		}
		o.src = behind
		o.refused(device, receivedAt, &refusal, uint32(samples), nil)
	})
}

// move writes a record whose key belongs elsewhere there, and goes on behind it (G3).
func (o *owner) move(ctx context.Context, r *IngestRecord, behind codec.Position) {
	m, home := r.Message, r.Home
	o.wait(func(done func(error)) {
		o.host.cfg.Ingest.Append(ctx, home, &m, done)
	}, func(err error) {
		if err != nil {
			o.log.Error("record of ingest not moved to the partition of its key", "home", home, "err", err)
			return
		}
		o.src = behind
		o.host.stats.Rerouted.Add(1)
	})
}

// wait stalls the feed until something is durable elsewhere; after a failure it is tried again.
func (o *owner) wait(begin func(done func(error)), end func(error)) {
	o.feed.stalled = true
	o.out.letters++
	begin(func(err error) {
		o.p.box.call(func(current *owner) {
			if current != o { // the next owner finds the record again
				return
			}
			o.out.letters--
			end(err)
			if err == nil {
				o.feed.stalled = false
				return
			}
			o.host.after(ingestRetry, func() {
				o.p.box.call(func(current *owner) {
					if current == o {
						o.feed.stalled = false
					}
				})
			})
		})
	})
}
