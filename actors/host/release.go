package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// release handles acknowledgements strictly in the order of n (O3): only a record that lies directly
// behind our previous one, or behind a hole of void records (O4), lets anything out (O6).
func (o *owner) release(ctx context.Context, acks []ack) {
	for i := range acks {
		a := &acks[i]
		switch {
		case a.owner != o || o.stopped != nil:
			continue
		case a.state:
			o.stateAck(ctx, a)
			continue
		case a.err != nil:
			o.stopped = fmt.Errorf("record %d: %w: %w", a.n, errAppend, a.err)
			continue
		case a.n != o.released+1:
			o.stopped = fmt.Errorf("record %d acknowledged, expected %d: %w", a.n, o.released+1, errAppend)
			continue
		case a.offset <= o.prev:
			o.stopped = fmt.Errorf("record %d at offset %d, previous at %d: %w", a.n, a.offset, o.prev, errAppend)
			continue
		case a.offset > o.prev+1:
			if o.stopped = o.checkHole(ctx, o.prev+1, a.offset); o.stopped != nil {
				continue
			}
		}
		o.prev, o.released = a.offset, a.n
		o.letGo(ctx)
		o.sendState()
		o.saw()
	}
}

// checkHole reads every offset between two records of ours (O4). Only void records of older epochs
// may stand there: a Claim means that we are the stale owner, a record of our own epoch that the
// producer wrote twice, an offset that cannot be read that nobody knows.
func (o *owner) checkHole(ctx context.Context, from, to int64) error {
	var ev codec.Event
	var dec codec.EventDecoder
	next := from
	err := o.host.cfg.Changelog.Read(ctx, o.p.id, from, to, func(r LogRecord) error {
		if r.Offset != next {
			return fmt.Errorf("offset %d is missing: %w", next, errFenced)
		}
		next++
		readable := dec.Decode(r.Value, &ev) == nil // foreign bytes are void
		switch {
		case !readable:
		case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
			return fmt.Errorf("claim of %s at offset %d: %w", ev.Claim.Node, r.Offset, errFenced)
		case ev.Epoch >= o.epoch:
			return fmt.Errorf("record of epoch %d at offset %d: %w", ev.Epoch, r.Offset, errFenced)
		}
		o.host.stats.Void.Add(1)
		return nil
	})
	if err == nil && next != to {
		err = fmt.Errorf("offset %d is missing: %w", next, errFenced)
	}
	if err != nil {
		return fmt.Errorf("hole %d-%d: %w", from, to-1, err)
	}
	return nil
}

// letGo lets everything out that waited for the records released so far.
func (o *owner) letGo(ctx context.Context) {
	for o.pend.len() > 0 && o.pend.front().n <= o.released {
		e := o.pend.front()
		if e.cell != nil {
			o.count(&e.counts)
			o.effects(ctx, e)
			o.ckpt.changed(e.cell, Cursor{Next: o.prev, Epoch: o.epoch, N: e.n - 1}, o.now)
		}
		switch {
		case e.reply != nil:
			o.replies.add(e.reply, e.token, Released)
		case e.parts != nil:
			o.part(e.parts, Released)
		case e.fn != nil:
			e.fn()
		}
		o.pend.pop()
	}
	for o.chunks.len() > 0 && o.chunks.front().last <= o.released {
		k := o.chunks.front()
		o.flight -= k.bytes
		o.host.cfg.Observe(StageDurable, time.Duration(o.host.cfg.Clock()-k.at))
		if k.rows != nil {
			o.offer(k.rows)
		}
		o.chunks.pop()
	}
}

// effects shows a released record to watchers and publishes its alert transitions (E1).
func (o *owner) effects(ctx context.Context, e *pending) {
	if w := o.host.cfg.Watchers; w != nil && w.TwinsWatched() {
		w.TwinChanged(o.p.id, e.cell.id(), e.version)
	}
	for i := range e.effects {
		t := &e.effects[i]
		t.Offset = o.prev
		o.alerts.apply(t)
		if t.Alert.Shadow {
			continue
		}
		o.host.stats.transition(uint8(t.Alert.Severity), uint8(t.Alert.State))
		if o.host.cfg.Rows != nil {
			// Chunks leave with their last record, so the oldest one is this record's.
			k := o.chunks.front()
			if k.rows == nil {
				k.rows = takeRows()
			}
			k.rows.Alerts = append(k.rows.Alerts, *t)
		}
	}
	if e.tell {
		o.tell(ctx, Cursor{Next: o.prev, Epoch: o.epoch, N: e.n - 1}, e.cell.id(), e.message)
	}
	if len(e.effects) > 0 {
		o.publish(ctx, Cursor{Next: o.prev, Epoch: o.epoch, N: e.n - 1}, e.since, e.effects)
	}
}

// offer gives rows to the time series store. Whether it takes them or not, it can find them in the log.
func (o *owner) offer(r *Rows) {
	r.Partition = o.p.id
	r.From = o.offered
	r.To = Cursor{Next: o.prev + 1, Epoch: o.epoch, N: o.released}
	o.offered = r.To
	if !o.host.cfg.Rows.Offer(r) {
		r.Recycle(r)
	}
}

var rowsPool sync.Pool

func takeRows() *Rows {
	if r, ok := rowsPool.Get().(*Rows); ok {
		return r
	}
	return &Rows{Recycle: recycle}
}

func recycle(r *Rows) {
	clear(r.Samples)
	clear(r.Alerts)
	r.Samples, r.Alerts, r.Readings = r.Samples[:0], r.Alerts[:0], r.Readings[:0]
	rowsPool.Put(r)
}

// replyBatch gathers verdicts, so that a door is called once for many messages.
type replyBatch struct {
	reply   Reply
	verdict Verdict
	tokens  []uint64
}

func (b *replyBatch) add(r Reply, token uint64, v Verdict) {
	if r != b.reply || v != b.verdict || len(b.tokens) >= 1024 {
		b.flush()
		b.reply, b.verdict = r, v
	}
	b.tokens = append(b.tokens, token)
}

func (b *replyBatch) flush() {
	if len(b.tokens) > 0 {
		b.reply.Done(b.tokens, b.verdict)
	}
	b.reply, b.tokens = nil, b.tokens[:0]
}
