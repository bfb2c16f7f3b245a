package host

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

// message applies one device message. Its door hears of it when everything it led to is durable.
func (o *owner) message(ctx context.Context, m *Message) {
	o.host.stats.Messages[m.Kind].Add(1)
	c := o.twins[string(m.Device)]
	if c == nil {
		c = o.find(string(m.Device))
	}
	switch m.Kind {
	case Telemetry:
		o.telemetry(ctx, m, c)
	case Status, Reported:
		o.single(ctx, m, c)
	}
}

func (o *owner) telemetry(ctx context.Context, m *Message, c *cell) {
	items, refusal := o.dec.Telemetry(m.ContentType, m.Payload, m.ReceivedAt)
	o.receive(max(1, len(items)))
	switch {
	case refusal != nil:
		o.refuse(ctx, m, refusal, 1, nil)
		return
	case (c == nil || c.twin.Deleted()) && o.host.cfg.RefuseUnknown:
		o.refuse(ctx, m, unknownDevice(len(items)), len(items), nil)
		return
	case c != nil && c.quarantined:
		o.refuse(ctx, m, quarantined(len(items)), len(items), nil)
		return
	}
	var shared *parts // only when the samples end in different places
	var last *pending
	var wait uint64 // newest record a duplicate must wait for
	for i := range items {
		refusal := items[i].Refusal
		if refusal == nil {
			o.event.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: m.ReceivedAt, Sample: items[i].Sample}
			c, last, refusal = o.input(m, c, last)
			if c != nil {
				wait = c.lastN
			}
		}
		if refusal != nil {
			if shared == nil {
				shared = &parts{reply: m.Reply, token: m.Token, left: 1, verdict: Released}
			}
			shared.left++
			o.refuse(ctx, m, refusal, 1, shared)
		}
	}
	o.settle(m, last, wait, shared)
}

// single applies a message that carries no samples. Such a message is no sample either, unless it is
// refused.
func (o *owner) single(ctx context.Context, m *Message, c *cell) {
	says, refusal := o.read(m)
	var last *pending
	switch {
	case refusal != nil:
	case !says:
		o.replies.add(m.Reply, m.Token, Released)
		return
	case c != nil && c.quarantined:
		refusal = quarantined(1)
	default:
		c, last, refusal = o.input(m, c, nil)
	}
	if refusal != nil {
		o.receive(1)
		o.refuse(ctx, m, refusal, 1, nil)
		return
	}
	var wait uint64
	if c != nil {
		wait = c.lastN
	}
	o.settle(m, last, wait, nil)
}

// read decodes a message that carries no samples into o.event.Input. It may say nothing: an empty status
// clears the retained message.
func (o *owner) read(m *Message) (says bool, refusal *codec.Refusal) {
	if m.Kind == Status {
		status, ok, refusal := o.dec.Status(m.Payload)
		o.event.Input = twin.Input{Kind: twin.KindStatus, ReceivedAt: m.ReceivedAt, Status: status}
		return ok, refusal
	}
	patch, refusal := o.dec.Reported(m.ContentType, m.Payload)
	o.event.Input = twin.Input{Kind: twin.KindReported, ReceivedAt: m.ReceivedAt, Reported: twin.Reported{
		Numbered: m.Numbered, Boot: m.Boot, Seq: m.Seq, Patch: patch,
	}}
	return true, refusal
}

// input steps the twin of m with o.event.Input, making the twin if this is its first accepted input,
// and returns the newest pending record of the message.
func (o *owner) input(m *Message, c *cell, last *pending) (*cell, *pending, *codec.Refusal) {
	fresh := c == nil
	if fresh {
		c = o.newCell(string(m.Device))
	}
	if !o.step(c) {
		if fresh {
			o.adopt(c) // keep it: a quarantined twin is visible
		}
		if last != nil { // the record of the quarantine, which may have moved the others
			last = o.pend.back()
		}
		return c, last, quarantined(1)
	}
	fx := &o.event.Effects
	switch fx.Outcome {
	case twin.Refuse:
		if fresh {
			c = nil // a refused message makes no twin
		}
		in := &o.event.Input
		return c, last, &codec.Refusal{
			Reason: fx.Reason, Detail: fx.Detail,
			Numbered: in.Kind == twin.KindSample && in.Sample.Numbered, Boot: in.Sample.Boot, Seq: in.Sample.Seq,
		}
	case twin.Duplicate:
		if o.event.Input.Kind == twin.KindSample {
			o.count(&Counts{Duplicate: 1})
		}
		return c, last, nil
	case twin.Unchanged:
		if fresh {
			c = nil
		}
		return c, last, nil
	case twin.Applied, twin.Held, twin.Late: // to be logged
	}
	if fresh {
		o.adopt(c)
	}
	last = o.record(c)
	if fx.Outcome == twin.Held && o.dueOf(&c.twin) <= o.now {
		// Too many wait. Now, not at the next tick: what is held must fit a record when it is applied.
		o.look(c)
		last = o.pend.push()
		*last = pending{n: o.n}
	}
	return c, last, nil
}

// step runs the pure core on o.event.Input. A panic there quarantines this twin and nothing else; what
// it was doing is not logged, so the restore that follows finds the twin as it was before.
func (o *owner) step(c *cell) (ok bool) {
	if c.broken { // by an earlier sample of the same message
		return false
	}
	defer func() {
		if v := recover(); v != nil {
			o.log.Error("twin panicked and is quarantined", "device_id", c.id(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			o.quarantine(c, fmt.Sprint(v))
		}
	}()
	if o.stepHook != nil && !c.quarantined {
		o.stepHook(c)
	}
	c.twin.Step(o.now, &o.event.Input, o.rules.Alerts, &o.event.Effects)
	return true
}

// settle arranges the verdict of m: with the release of its newest record; at once if there is none
// and everything its duplicates repeat is released (O6); or with the last of its parts.
func (o *owner) settle(m *Message, last *pending, wait uint64, shared *parts) {
	if last == nil && wait > o.released {
		last = o.pend.push()
		*last = pending{n: o.n}
	}
	switch {
	case shared == nil && last == nil:
		o.replies.add(m.Reply, m.Token, Released)
	case shared == nil:
		last.reply, last.token = m.Reply, m.Token
	case last == nil:
		o.part(shared, Released)
	default:
		last.parts = shared
	}
}

// part ends one part of a message.
func (o *owner) part(s *parts, v Verdict) {
	if s == nil { // nobody waits
		return
	}
	if v != Released {
		s.verdict = v
	}
	if s.left--; s.left == 0 {
		o.replies.add(s.reply, s.token, s.verdict)
	}
}

// receive accounts for samples on their way in.
func (o *owner) receive(samples int) {
	o.unsettled += samples
	o.host.stats.Received.Add(uint64(samples))
}

// count accounts for what became of samples.
func (o *owner) count(n *Counts) {
	o.unsettled -= n.sum()
	o.p.held += int64(n.Held)
	o.host.stats.add(n)
}

// sendBack accounts for samples that their doors keep.
func (o *owner) sendBack(samples int) {
	o.unsettled -= samples
	o.host.stats.sentBack(samples)
}

func (o *owner) newCell(device string) *cell {
	pid := pidKind + device
	c := &cell{part: o.p}
	c.pid.Address, c.pid.ID = o.host.engine.Address(), pid
	c.twin = *twin.New(c.id(), o.now)
	return c
}

// adopt makes c known to its partition and to the actor engine.
func (o *owner) adopt(c *cell) {
	o.twins[c.id()] = c
	o.idle.rota = append(o.idle.rota, c)
	o.idle.peak = max(o.idle.peak, len(o.twins))
	if o.wheel != nil { // what is being restored is not there yet
		o.host.engine.SpawnProc(c)
		o.roster.enter(c)
	}
}

// discard ends the epoch (O5): whoever waits for it is told to route again, its twins leave the engine.
func (o *owner) discard() {
	for o.pend.len() > 0 {
		e := o.pend.front()
		switch {
		case e.reply != nil:
			o.replies.add(e.reply, e.token, NotOwner)
		case e.parts != nil:
			o.part(e.parts, NotOwner)
		case e.fn != nil:
			e.fn()
		}
		o.pend.pop()
	}
	o.replies.flush()
	o.refuseReads()
	o.refuseCalls()
	o.giveBackRest()
	o.sendBack(o.unsettled)
	if o.wheel == nil { // none of them is known yet
		return
	}
	for _, c := range o.twins {
		o.host.engine.Registry.Remove(&c.pid)
	}
}

// giveBackRest gives back the messages that were taken from the mailbox and not looked at.
func (o *owner) giveBackRest() {
	for i := range o.todo {
		o.replies.add(o.todo[i].Reply, o.todo[i].Token, NotOwner)
	}
	o.todo = nil
	o.replies.flush()
}

func (o *owner) refuseCalls() {
	for _, call := range o.p.box.takeCalls() {
		call(nil)
	}
}

func unknownDevice(samples int) *codec.Refusal {
	return &codec.Refusal{
		Reason: twin.UnknownDevice,
		Detail: fmt.Sprintf("no twin of this device exists and unknown-devices is dead-letter (%d samples); make the twin first", samples),
	}
}

func quarantined(samples int) *codec.Refusal {
	return &codec.Refusal{
		Reason: twin.Quarantined,
		Detail: fmt.Sprintf("the twin's code panicked and it takes no input until reset (%d samples)", samples),
	}
}
