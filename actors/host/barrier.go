package host

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// barrier stands before every gap (rule P2): what a gateway took while the partition's owner was away
// may wait in ingest, acknowledged, while later samples came by the fast path. So once a gap is due,
// the end of ingest is read, and everything below it handled, before the gap is logged.
type barrier struct {
	waiting []*cell // a gap is due; for the next question
	asked   []*cell // for the one under way; nil: none
	at      int64   // when it was put; only gaps due then may pass behind it
	end     int64   // the answer; -1: not there yet
}

// await queues c before the barrier.
func (b *barrier) await(c *cell) {
	if !c.atBarrier {
		c.atBarrier = true
		b.waiting = append(b.waiting, c)
	}
}

// passBarrier logs the gaps that may be declared now, and asks for those that wait.
func (o *owner) passBarrier(ctx context.Context) {
	b := &o.barrier
	if b.asked != nil && b.end >= 0 && o.src.Offset >= uint64(b.end) {
		cells := b.asked
		b.asked = nil
		for _, c := range cells {
			c.atBarrier = false
			if o.twins[c.id()] == c {
				o.gaps(c, b.at)
			}
		}
	}
	if b.asked != nil || len(b.waiting) == 0 {
		return
	}
	b.asked, b.waiting, b.at, b.end = b.waiting, nil, o.now, -1
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, end, err := o.host.cfg.Ingest.Bounds(ctx, o.p.id)
		o.p.box.call(func(current *owner) {
			switch {
			case current != o:
			case err != nil: // asked again in the next turn
				b.waiting, b.asked = append(b.asked, b.waiting...), nil
			default:
				b.end = end
			}
		})
	}()
}

// gaps logs the gaps of c that were due at a time, one after another.
func (o *owner) gaps(c *cell, at int64) {
	for !c.quarantined {
		in, ok := c.twin.Wake(at, o.limits())
		if !ok || in.Kind != twin.KindGap || !o.due(c, in) {
			break
		}
	}
	o.look(c)
}

// limits are those of held samples: long until all of ingest as of the claim is handled.
func (o *owner) limits() twin.Limits {
	if o.feed.settled {
		return o.host.cfg.Limits
	}
	return twin.UnsettledLimits()
}

// settle ends the time in which held samples are given longer.
func (o *owner) settleFeed() {
	f := &o.feed
	if f.settled || o.src.Offset < uint64(f.target) {
		return
	}
	f.settled = true
	for _, c := range o.twins {
		if c.twin.Counters().Held > 0 {
			o.wheel.schedule(c, c.twin.DueWithin(o.limits()))
		}
	}
}
