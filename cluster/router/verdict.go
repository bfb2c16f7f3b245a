package router

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// askAfter is how long a verdict is waited for before it is asked for, again and again.
const askAfter = 500 * time.Millisecond

// hear is the actor that takes verdicts.
func (r *Router) hear(from string, m proto.Message) {
	response, ok := m.(*doppelv1.DeliverResponse)
	if !ok {
		return
	}
	r.peersMu.RLock()
	p := r.peers[from]
	r.peersMu.RUnlock()
	if p == nil {
		return
	}
	released := r.answers.Get().(*answers) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	var others strays
	p.mu.Lock()
	now := p.r.now()
	p.answered, p.mute = now, 0
	p.each(response, func(f *flight, i int) {
		p.verdict(f, i, response.GetVerdict(), now, released, &others)
	})
	p.mu.Unlock()
	released.tell(host.Released)
	r.answers.Put(released)
	others.divert(r)
}

// each calls fn with every message in flight that the response names. Under mu.
func (p *peer) each(response *doppelv1.DeliverResponse, fn func(f *flight, i int)) {
	id, indexes := response.GetId(), response.GetIndexes()
	if len(indexes) == 0 {
		if f := p.flights[id]; f != nil {
			for i := 0; i < len(f.msgs) && f.left > 0; i++ {
				fn(f, i)
			}
		}
		return
	}
	var f *flight
	for _, index := range indexes {
		name := id + uint64(index)
		in, i := name&^(flightMessages-1), int(name&(flightMessages-1))
		if f == nil || f.id != in || f.left == 0 { // one that is settled may be another by now
			f = p.flights[in]
		}
		if f != nil && i < len(f.msgs) {
			fn(f, i)
		} else {
			p.r.stats.late.Add(1)
		}
	}
}

// verdict settles a message, or notes that it was accepted. Under mu.
func (p *peer) verdict(f *flight, i int, v doppelv1.DeliveryVerdict, now time.Time, released *answers, others *strays) {
	if v == doppelv1.DeliveryVerdict_DELIVERY_VERDICT_ACCEPTED {
		f.advance(i, accepted)
		return
	}
	if !f.advance(i, settled) {
		p.r.stats.late.Add(1)
		return
	}
	m, part := &f.msgs[i], f.parts[i]
	switch v {
	case doppelv1.DeliveryVerdict_DELIVERY_VERDICT_RELEASED:
		p.r.stats.hops[hopReleased].Add(1)
		released.add(m)
	case doppelv1.DeliveryVerdict_DELIVERY_VERDICT_NOT_OWNER:
		p.r.stats.hops[hopNotOwner].Add(1)
		p.r.detours[part].shun(p.address, now)
		others.add(part, m, moving)
	case doppelv1.DeliveryVerdict_DELIVERY_VERDICT_BUSY:
		p.r.stats.hops[hopBusy].Add(1)
		others.add(part, m, saturated)
	default: // also what a newer build says
		p.r.stats.hops[hopFailed].Add(1)
		others.add(part, m, saturated)
	}
	if f.left == 0 {
		p.finish(f)
	}
}

// look is called while there are flights: it gives up on those whose time is over.
func (p *peer) look() {
	heard := p.r.cfg.Wire.Heard(p.address)
	var lost strays
	var ask []uint64
	p.mu.Lock()
	now := p.r.now()
	for _, id := range p.ids() {
		f := p.flights[id]
		if p.overdue(f, now, heard, &lost) && now.Sub(f.asked) > askAfter {
			f.asked = now
			ask = append(ask, id)
		}
	}
	p.sweeping = len(p.flights) > 0
	if p.sweeping {
		p.sweep.Reset(sweepEvery)
	}
	p.mu.Unlock()
	lost.divert(p.r)
	for _, id := range ask {
		// The answer to an empty request is what a flight waits for: verdicts travel at most once.
		_ = p.r.cfg.Wire.TellEncoded(p.address, inboxName, codec.DeliveryType, codec.AppendDelivery(nil, anyPartition, id)) // asked again
	}
}

// ids are those of the flights in the order they began, which wraps around.
func (p *peer) ids() []uint64 {
	ids := make([]uint64, 0, len(p.flights))
	for id := range p.flights {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint64) int { return int(int64(a - b)) })
	return ids
}

// overdue takes out of f what is to go another way, and says whether something is left that was sent.
func (p *peer) overdue(f *flight, now, heard time.Time, lost *strays) bool {
	cfg := &p.r.cfg
	age := now.Sub(f.born)
	last := f.at
	if heard.After(last) {
		last = heard
	}
	silent := !f.at.IsZero() && now.Sub(last) > cfg.SilentAfter
	switch {
	case silent:
		p.giveUp()
		lost.take(p, f, settled, down)
	case age > cfg.VerdictWithin:
		lost.take(p, f, settled, saturated)
	case f.unsaid > 0 && age > cfg.AcceptWithin:
		why := saturated
		switch {
		case heard.Before(f.at):
			why = down
			p.giveUp()
		case p.answered.Before(f.born): // alive, but not for us
			p.mute = min(max(2*p.mute, firstMute), longestMute)
			p.mutedTil = now.Add(p.mute)
		}
		lost.take(p, f, accepted, why)
	}
	return f.left > 0 && !f.at.IsZero()
}

// giveUp leaves the peer alone until it is heard of again. Under mu.
func (p *peer) giveUp() { p.down, p.downAt = true, p.r.now() }

// strays are messages on their way from a flight to the slow path.
type strays struct{ list []stray }

type stray struct {
	part int32
	why  reason
	msg  host.Message
}

func (s *strays) add(part int32, m *host.Message, why reason) {
	s.list = append(s.list, stray{part, why, *m})
}

// take settles the messages of f that are at an earlier stage than below. Under the mutex of p.
func (s *strays) take(p *peer, f *flight, below stage, why reason) {
	before := f.left
	for i := range f.msgs {
		if f.stages[i] < below && f.advance(i, settled) {
			s.add(f.parts[i], &f.msgs[i], why)
			p.r.stats.hops[hopUnanswered].Add(1)
		}
	}
	if f.left == 0 && before > 0 {
		p.finish(f)
	}
}

// divert gives them to the slow paths of their partitions; what these have no room for goes back to
// its door, which delivers it again. It does not block.
func (s *strays) divert(r *Router) {
	for i := range s.list {
		at := &s.list[i]
		if !r.detours[at.part].take(r, at) {
			at.msg.Reply.Done([]uint64{at.msg.Token}, host.Busy)
		}
	}
}
