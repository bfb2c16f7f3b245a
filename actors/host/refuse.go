package host

import (
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

// refuse sends m to the dead letters: first the letter durable, then the refused record if the
// device has a twin, then the verdict (G3). The account of a whole refused message is the number of
// samples received for it.
func (o *owner) refuse(ctx context.Context, m *Message, r *codec.Refusal, samples int, shared *parts) {
	if shared == nil {
		shared = &parts{reply: m.Reply, token: m.Token, left: 1, verdict: Released}
	}
	device, receivedAt, refusal := string(m.Device), m.ReceivedAt, *r
	o.out.letters++
	o.host.cfg.DeadLetters.Put(ctx, o.letter(m, r), func(err error) {
		o.p.box.call(func(current *owner) {
			o.out.letters--
			switch {
			case current != o: // the epoch ended meanwhile; the letter may be written twice
				o.part(shared, NotOwner)
				o.replies.flush()
			case err != nil:
				o.log.Error("dead letter not written", "device_id", device, "err", err)
				o.sendBack(samples)
				o.part(shared, Failed)
			default:
				o.refused(device, receivedAt, &refusal, uint32(samples), shared)
			}
		})
	})
}

// letter is m as a dead letter.
func (o *owner) letter(m *Message, r *codec.Refusal) DeadLetter {
	return DeadLetter{
		Device: string(m.Device), Payload: m.Payload, Reason: r.Reason, Detail: r.Detail, Attempts: int(m.Attempts),
		SourceTopic: m.sourceTopic(), ContentType: m.ContentType, ReceivedAt: m.ReceivedAt, Node: o.host.cfg.Node,
	}
}

// refused logs that a message of the device is among the dead letters, so that its number leaves no
// gap and its account is part of the fold.
func (o *owner) refused(device string, receivedAt int64, r *codec.Refusal, count uint32, shared *parts) {
	o.host.stats.deadLettered(r.Reason)
	o.host.cfg.Rejected(device, r.Reason, r.Detail)
	c := o.find(device)
	if c != nil {
		o.event.Input = twin.Input{Kind: twin.KindRefused, ReceivedAt: receivedAt, Refused: twin.Refused{
			Numbered: r.Numbered, Boot: r.Boot, Seq: r.Seq, Reason: r.Reason, Count: count,
		}}
		if c.broken { // its replay counts it
			o.event.Effects = twin.Effects{Outcome: twin.Applied}
		} else if !o.step(c) {
			o.event.Effects.Outcome = twin.Unchanged
		}
		if o.event.Effects.Outcome.Logged() {
			e := o.record(c)
			e.parts, e.counts.DeadLettered = shared, count
			return
		}
	}
	o.count(&Counts{DeadLettered: count})
	if c != nil && c.lastN > o.released { // its number may be the one of a refusal that is not released
		*o.pend.push() = pending{n: o.n, parts: shared}
		return
	}
	o.part(shared, Released)
}
