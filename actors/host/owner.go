package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var (
	// errRefuseToServe ends Serve: the log contradicts itself (S1, G5) and serving would lose data.
	errRefuseToServe = errors.New("host: refusing to serve")
	errFenced        = errors.New("host: a newer claim stands in the log")
	errAppend        = errors.New("host: the log did not take a record")
	errFeed          = errors.New("host: ingest cannot be read any further")
)

// owner is one epoch of a partition: everything in it dies with the epoch (O5). All of it belongs
// to whoever steps its succession, or reads it between two steps (partition.turn).
type owner struct {
	p    *partition
	host *Host
	log  *slog.Logger

	epoch    uint64
	src      codec.Position // all of ingest below it is handled
	logged   codec.Position // src as the newest record has it
	n        uint64         // count of the newest record appended
	released uint64         // count of the newest record released
	prev     int64          // last verified offset (O3); first the claim's
	now      int64          // never runs backwards, also over restarts (O8)
	stopped  error          // why the epoch ended
	served   bool           // got as far as serving
	began    int64          // when it began to serve
	restart  bool           // the epoch ends as soon as nothing is in flight
	leaving  bool           // the partition is to be let go
	late     bool           // and the time for it is over

	vigil vigil

	unsettled int // samples received and not yet counted as anything

	twins        map[string]*cell
	wheel        *wheel[*cell]
	idle         idleness
	roster       roster
	alerts       alertIndex
	twinsOn      int64 // twins online
	tombs        int64 // deleted twins
	dec          *codec.Decoder
	event        codec.Event // scratch: the input and effects of the step under way
	out          outbox
	pend         ring[pending]
	chunks       ring[chunk]
	flight       int // bytes of chunks
	emits        ring[emission]
	publications publications
	tidings      tidings
	anew         []string // devices to be told all when the owner begins
	ckpt         checkpoints
	rules        *ruleset.Set // in force for the next record
	named        *ruleset.Set // by the newest record of rules; none: the built-in ones
	laws         laws
	review       []string // twins that the rules in force have not been held against yet
	feed         feed
	barrier      barrier
	settled      settlement
	offered      Cursor // up to where rows were offered to the time series store
	replies      replyBatch
	msgs         []Message // as taken from the mailbox
	todo         []Message // the end of msgs that is not looked at yet
	acks         []ack
	replayed     twin.Effects  // scratch of restore
	shown        shown         // what the partition's view shows
	stepHook     func(c *cell) // faults in tests
}

func newOwner(p *partition) *owner {
	o := &owner{
		p: p, host: p.host, log: p.host.log.With("partition", p.id), dec: codec.NewDecoder(), stepHook: p.host.stepHook,
	}
	o.dec.SetRanges(p.host.cfg.Ranges)
	o.forget()
	return o
}

// forget goes back to where nothing is restored yet.
func (o *owner) forget() {
	o.twins, o.idle = make(map[string]*cell), idleness{passive: make(map[string]*passive), names: o.dec.Name}
	o.alerts, o.ckpt, o.twinsOn, o.src, o.now = alertIndex{}, checkpoints{}, 0, codec.Position{}, 0
	o.rules, o.named, o.laws = o.host.base, o.host.base, nil
}

// Ack implements Acks (O2: bound to this owner).
func (o *owner) Ack(n uint64, offset int64, err error) {
	o.p.box.ack(ack{owner: o, n: n, offset: offset, err: err})
}

// begin makes the restored twins live: their timers, the accounts, and what may not have been seen (S4).
func (o *owner) begin(ctx context.Context, emit []lateEffects) {
	o.served = true
	if g := o.host.cfg.Gateways; g != nil {
		o.settled.mark = g.Mark()
	}
	o.now = max(o.now, o.host.cfg.Clock())
	o.began, o.vigil.verified, o.ckpt.at, o.ckpt.floor.next = o.now, o.now, o.now, o.now
	o.wheel, o.idle.wheel = newWheel[*cell](o.now, wheelTick), newWheel[*passive](o.now, idleTick)
	held := o.wakeUp()
	o.layDown()
	o.host.stats.takeOver(held - o.p.held) // samples that others held are now ours to settle
	o.p.held = held
	if o.host.cfg.Rows != nil {
		o.offer(takeRows()) // no rows: the store learns how far this partition is
	}
	for i := range emit {
		if len(emit[i].transitions) > 0 {
			o.publish(ctx, emit[i].at, 0, emit[i].transitions)
		}
		if emit[i].tell != "" {
			o.tellLate(ctx, emit[i].at, emit[i].tell)
		}
	}
	for _, device := range o.anew {
		o.tell(ctx, o.releasedTo(), device, o.desired(device))
	}
	o.anew = nil
	o.tellChanged()
}

// desired is what a device is told now, as nothing is in flight.
func (o *owner) desired(device string) []byte {
	if c := o.twins[device]; c != nil {
		return codec.DesiredMessage(&c.twin)
	}
	if p := o.idle.passive[device]; p != nil && o.decode(&o.idle.read, device, p) {
		return codec.DesiredMessage(&o.idle.read)
	}
	return nil
}

// tellChanged shows watchers the twins whose last changes an owner may have appended and not lived to
// release: they are among those without a checkpoint of all their changes (C1).
func (o *owner) tellChanged() {
	w, dirty := o.host.cfg.Watchers, &o.ckpt.dirty
	if w == nil || !w.TwinsWatched() {
		return
	}
	for place := dirty.head; place != dirty.tail; place++ {
		c := dirty.at(place).cell
		w.TwinChanged(o.p.id, c.id(), c.twin.Version())
	}
}

// claim appends a Claim; its offset is the epoch (O1).
func (o *owner) claim(ctx context.Context) {
	o.show(Claiming)
	cfg := &o.host.cfg
	o.event = codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: o.host.cfg.Clock(),
		Claim: &codec.Claim{Node: cfg.Node, Incarnation: cfg.Incarnation, Nonce: cfg.Nonce()},
	}
	cfg.Changelog.Append(ctx, o.p.id, []Record{{Value: codec.AppendEvent(nil, &o.event)}}, o)
}

// claimed looks whether the Claim has its answer.
func (o *owner) claimed() (bool, error) {
	o.refuseCalls()
	for _, a := range o.p.box.takeAcks(nil) {
		switch {
		case a.owner != o:
		case a.err != nil:
			return false, fmt.Errorf("claim: %w: %w", errAppend, a.err)
		case a.offset < 0:
			return false, fmt.Errorf("claim: %w: offset unknown", errAppend)
		default:
			o.epoch, o.prev = uint64(a.offset), a.offset
			return true, nil
		}
	}
	return false, nil
}

// open restores and begins to serve. ctx ends with the epoch or when the owner is to leave, work some
// time after that.
func (o *owner) open(ctx, work context.Context) error {
	o.show(Restoring)
	emit, err := o.restore(ctx)
	if err != nil {
		return err
	}
	if err := o.follow(ctx); err != nil {
		return err
	}
	o.begin(work, emit)
	o.show(Serving)
	o.log.DebugContext(ctx, "serving", "epoch", o.epoch, "twins", len(o.twins))
	return nil
}

const (
	// leaveWithin bounds how long an owner that leaves waits for the log.
	leaveWithin = 6 * time.Second
	// handOverWithin bounds, of that, the checkpoints that spare the next owner work.
	handOverWithin = 4 * time.Second
)

// serve takes a turn and returns why the epoch ends, nil as long as it does not. At the end of ctx it
// takes no more input, waits for what is in flight, so that devices get their acknowledgements, and leaves
// checkpoints and a floor (O9). work ends some time after ctx, whatever is still in flight.
func (o *owner) serve(ctx, work context.Context) error {
	if ctx.Err() != nil && !o.leaving {
		o.leave()
		o.host.after(handOverWithin, func() { o.p.box.call(func(*owner) { o.late = true }) })
	}
	if work.Err() != nil {
		return fmt.Errorf("%d records unacknowledged at shutdown: %w", o.pend.len(), ctx.Err())
	}
	o.turn(work, o.leaving || o.restart)
	quiet := o.pend.len() == 0 && o.out.letters == 0
	switch {
	case o.stopped != nil:
		return o.stopped
	case quiet && o.restart:
		return errRestart
	case quiet && o.leaving && (o.handedOver(work) || o.late):
		return ctx.Err()
	}
	return nil
}

// handedOver works on the checkpoints and the floor of an owner that leaves, and says when they are kept.
func (o *owner) handedOver(ctx context.Context) bool {
	k := &o.ckpt
	defer o.flushState(ctx)
	o.checkpoint(true)
	if k.dirty.len() > 0 || k.flying.len() > 0 || o.n != o.released || o.emits.len() > 0 || o.tidings.flying > 0 {
		return false
	}
	o.takeFloor(true)
	return k.flying.len() == 0
}

// turn does everything that is waiting: releases, queries, messages, timers, one append.
func (o *owner) turn(ctx context.Context, leaving bool) {
	o.acks = o.p.box.takeAcks(o.acks)
	o.release(ctx, o.acks)
	o.now = max(o.host.cfg.Clock(), o.now)
	for _, call := range o.p.box.takeCalls() {
		call(o)
	}
	if o.stopped == nil && !leaving {
		o.takeInput(ctx)
		if !o.full() { // or the log would be waited for, and queries with it
			o.followGateways()
			o.followRules()
			o.reviewSome()
			o.wheel.advance(o.now, o.look)
			o.idle.wheel.advance(o.now, o.wake)
			o.passBarrier(ctx)
			o.sweep()
		}
		if o.now >= o.alerts.expiry {
			o.alerts.expire(o.now)
		}
		o.earn()
		if !o.full() {
			o.rewrite()
			o.checkpoint(false)
		}
		o.takeFloor(false)
		o.verify(ctx)
	}
	if o.stopped == nil {
		o.answerReads()
		o.append(ctx)
		o.flushState(ctx)
	}
	o.replies.flush()
	if o.leaving {
		o.show(Leaving)
		return
	}
	o.show(Serving)
}

// leave takes no more messages: those that wait find another way, now and not at the end.
func (o *owner) leave() {
	o.leaving = true
	o.giveBackRest()
	o.p.giveBack(o.p.box.shutOut())
	o.show(Leaving)
}

// takeInput takes from both paths. What was acknowledged into ingest before the claim comes first, so
// that messages of the fast path need not be held for it.
func (o *owner) takeInput(ctx context.Context) {
	o.takeIngest(ctx)
	if o.settleFeed(); o.feed.settled {
		o.takeMessages(ctx)
	}
}

// takeMessages applies what waits, as long as no more is in flight than may be.
func (o *owner) takeMessages(ctx context.Context) {
	if o.full() {
		return
	}
	if len(o.todo) == 0 {
		o.msgs = o.p.box.takeMessages(o.msgs)
		if o.todo = o.msgs; len(o.todo) == 0 {
			return
		}
		o.followRules() // who sent these may have been told that newer ones are in force
		o.host.cfg.Observe(StageRoute, time.Duration(o.now-o.todo[0].ReceivedAt))
	}
	done := 0
	for done < len(o.todo) && !o.full() && !o.restart {
		o.message(ctx, &o.todo[done])
		done++
	}
	if done == 0 {
		return
	}
	clear(o.todo[:done])
	o.todo = o.todo[done:]
	spent := o.host.cfg.Clock() - o.now
	o.host.cfg.Observe(StageApply, time.Duration(spent/int64(done)))
}

// look is called by the wheel when c may have something due. The owner, never the twin, decides that
// time has passed (P1), and logs it.
//
// What is due of one twin in a turn is bounded: if time alone never settled it, the other twins would still have theirs.
func (o *owner) look(c *cell) {
	const inputsAtOnce = 64
	for range inputsAtOnce {
		if c.quarantined {
			break
		}
		in, ok := o.wakes(&c.twin, o.now)
		if !ok {
			break
		}
		if in.Kind == twin.KindGap && !in.Gap.Forced {
			o.barrier.await(c)
			break
		}
		if !o.due(c, in) {
			break
		}
	}
	o.wheel.schedule(c, o.dueOf(&c.twin))
}

// due logs an input of the owner's own: a gap or a tick.
func (o *owner) due(c *cell, in twin.Input) bool {
	o.event.Input = in
	gaps := c.twin.Counters().Gaps
	if !o.step(c) || !o.event.Effects.Outcome.Logged() {
		return false
	}
	gaps = c.twin.Counters().Gaps - gaps // none where a numbering merely begins
	o.host.stats.Gaps.Add(gaps)
	if in.Gap.Forced {
		o.host.stats.ForcedGaps.Add(gaps)
	}
	o.record(c)
	return true
}
