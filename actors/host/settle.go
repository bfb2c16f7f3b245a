package host

import (
	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// settlement says whether messages of the partition may be stranded somewhere, so that samples are held
// for longer before a gap is declared (rule P2). An owner begins unsettled: until ingest is handled to
// its end as of the claim, and every gateway has cleared a mark put behind the claim. Later it is unsettled
// while a gateway is long in clearing. That is logged, for people and for analyses of gaps: the fold of
// a twin does not depend on it.
type settlement struct {
	now    bool   // settled
	mark   uint64 // put behind the claim
	begun  bool   // the claim's own time is over
	logged bool   // the log says unsettled
	next   int64  // when to look at the gateways again
}

// cleared says whether every gateway has cleared a mark.
func (o *owner) cleared(mark uint64) bool {
	g := o.host.cfg.Gateways
	return g == nil || g.Cleared() >= mark
}

// settleFeed notes when all of ingest as of the claim is handled.
func (o *owner) settleFeed() {
	f := &o.feed
	f.settled = f.settled || o.src.Offset >= uint64(f.target)
}

// followGateways logs what the gateways say, and ends the time in which held samples wait for longer.
func (o *owner) followGateways() {
	s, all := &o.settled, true
	if g := o.host.cfg.Gateways; g != nil {
		if o.now < s.next {
			return
		}
		s.next, all = o.now+wheelTick, g.Settled()
	}
	s.begun = s.begun || o.feed.settled && o.cleared(s.mark)
	switch {
	case !all && !s.logged:
		o.recordSettled(false)
	case all && s.begun && s.logged:
		o.recordSettled(true)
	}
	was := s.now
	if s.now = all && s.begun; !s.now || was {
		return
	}
	for _, c := range o.idle.rota { // what they hold need not wait so long any more; in an order that a seed decides
		if c.twin.HeldSince() != 0 {
			o.wheel.schedule(c, o.dueOf(&c.twin))
		}
	}
}

// recordSettled logs that the partition is settled, or is not: a record without a key, as a Claim is.
func (o *owner) recordSettled(settled bool) {
	kind := doppelv1.EventKind_EVENT_KIND_UNSETTLED
	if settled {
		kind = doppelv1.EventKind_EVENT_KIND_SETTLED
	}
	o.settled.logged = !settled
	o.n++
	value := codec.AppendEvent(nil, &codec.Event{Kind: kind, Epoch: o.epoch, N: o.n, Now: o.now})
	o.out.bytes += len(value)
	o.out.recs = append(o.out.recs, Record{N: o.n, Value: value})
	*o.pend.push() = pending{n: o.n}
	o.log.Debug("messages may be stranded at a gateway, or are no more", "settled", settled)
}
