package host

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// barrier stands before every gap (rule P2): what a gateway took while the partition's owner was away
// may wait in ingest, acknowledged, while later samples came by the fast path; or it is still with a
// gateway, whose broker keeps it. So once a gap is due every gateway has to clear a mark. Behind that, since it
// may have cleared it by writing to ingest, the end of ingest is read. When everything below that is
// handled the gap is logged.
type barrier struct {
	waiting []*cell // a gap is due; for the next question
	asked   []*cell // for the one under way; nil: none
	at      int64   // when it was put; only gaps due then may pass behind it
	mark    uint64  // that the gateways have to clear first
	asking  bool    // they have, and the end of ingest was asked for
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
	if b.asked != nil {
		o.askIngest(ctx)
		return
	}
	if len(b.waiting) == 0 {
		return
	}
	b.asked, b.waiting, b.at, b.end, b.asking = b.waiting, nil, o.now, -1, false
	if g := o.host.cfg.Gateways; g != nil {
		b.mark = g.Mark()
	}
	o.askIngest(ctx)
}

// askIngest asks for the end of ingest once the gateways have cleared the mark.
func (o *owner) askIngest(ctx context.Context) {
	b := &o.barrier
	if b.asking || !o.cleared(b.mark) {
		return
	}
	b.asking = true
	o.host.cfg.Beside.Go(func() {
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
	})
}

// gaps logs the gaps of c that were due at a time, one after another.
func (o *owner) gaps(c *cell, at int64) {
	for !c.quarantined {
		in, ok := o.wakes(&c.twin, at)
		if !ok || in.Kind != twin.KindGap || !o.due(c, in) {
			break
		}
	}
	o.look(c)
}

// redelivery is how long samples that a restored twin holds wait for those in front of them at least: the
// death of their owner stranded messages with the devices and in the broker's session for this node.
const redelivery = 10 * time.Second

// limits are those of the samples that t holds: long in an unsettled partition.
func (o *owner) limits(t *twin.Twin) twin.Limits {
	if !o.settled.now {
		return o.inherited(t, twin.UnsettledLimits())
	}
	return o.inherited(t, o.host.cfg.Limits)
}

// inherited are the limits lim for a twin that may hold samples since before this owner began. They waited
// for nobody then, so they wait anew: no gap may be declared on what none was there to take.
func (o *owner) inherited(t *twin.Twin, lim twin.Limits) twin.Limits {
	if since := t.HeldSince(); since != 0 && since < o.began {
		lim.Hold = max(lim.Hold, redelivery) + time.Duration(o.began-since)
		lim.Held = max(lim.Held, twin.UnsettledLimits().Held)
	}
	return lim
}

// dueOf is when t has something due, 0: never. What became due while nobody was there waits for what was
// stranded meanwhile, too: a device whose data is on its way is not silent. Alerts bear the times at which
// they were due, so none of them is later for that.
func (o *owner) dueOf(t *twin.Twin) int64 {
	due := t.DueWithin(o.limits(t))
	if due != 0 && due < o.began {
		return o.began + int64(redelivery)
	}
	return due
}

// wakes is what is due of t at now. A gap is forced only beyond the longest limits.
func (o *owner) wakes(t *twin.Twin, now int64) (twin.Input, bool) {
	in, ok := t.Wake(now, o.limits(t))
	if ok && in.Kind == twin.KindTick && now < o.dueOf(t) {
		return in, false
	}
	if ok && in.Gap.Forced {
		beyond, _ := t.Wake(now, o.inherited(t, twin.UnsettledLimits()))
		in.Gap.Forced = beyond.Kind == twin.KindGap
	}
	return in, ok
}
