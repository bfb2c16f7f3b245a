package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var (
	// errRefuseToServe ends Serve: the log contradicts itself (S1, G5) and serving would lose data.
	errRefuseToServe = errors.New("host: refusing to serve")
	errFenced        = errors.New("host: a newer claim stands in the log")
	errAppend        = errors.New("host: the log did not take a record")
)

// owner is one epoch of a partition: everything in it dies with the epoch (O5). All of it belongs
// to the goroutine of run.
type owner struct {
	p    *partition
	host *Host
	log  *slog.Logger

	epoch    uint64
	n        uint64 // count of the newest record appended
	released uint64 // count of the newest record released
	prev     int64  // last verified offset (O3); first the claim's
	now      int64  // never runs backwards, also over restarts (O8)
	stopped  error  // why the epoch ended
	served   bool   // got as far as serving

	unsettled int // samples received and not yet counted as anything

	twins    map[string]*cell
	wheel    *wheel[*cell]
	idle     idleness
	alerts   alertIndex
	twinsOn  int64 // twins online
	dec      *codec.Decoder
	event    codec.Event // scratch: the input and effects of the step under way
	out      outbox
	pend     ring[pending]
	chunks   ring[chunk]
	offered  Cursor // up to where rows were offered to the time series store
	replies  replyBatch
	msgs     []Message // as taken from the mailbox
	todo     []Message // the end of msgs that is not looked at yet
	acks     []ack
	replayed twin.Effects  // scratch of restore
	shown    shown         // what the partition's view shows
	stepHook func(c *cell) // faults in tests
}

func newOwner(p *partition) *owner {
	o := &owner{
		p: p, host: p.host, log: p.host.log.With("partition", p.id),
		twins: make(map[string]*cell), dec: codec.NewDecoder(), stepHook: p.host.stepHook,
	}
	o.idle.passive, o.idle.names = make(map[string]*passive), o.dec.Name
	return o
}

// Ack implements Acks (O2: bound to this owner).
func (o *owner) Ack(n uint64, offset int64, err error) {
	o.p.box.ack(ack{owner: o, n: n, offset: offset, err: err})
}

// run claims, restores and serves until the epoch or ctx ends.
func (o *owner) run(ctx context.Context) error {
	o.show(Claiming)
	if err := o.claim(ctx); err != nil {
		return err
	}
	o.show(Restoring)
	if err := o.restore(ctx); err != nil {
		return err
	}
	o.served = true
	now := o.host.cfg.Clock()
	o.wheel, o.idle.wheel = newWheel[*cell](now, wheelTick), newWheel[*passive](now, idleTick)
	var held int64
	for _, c := range o.twins {
		o.wheel.schedule(c, c.twin.DueWithin(o.host.cfg.Limits))
		held += int64(c.twin.Counters().Held)
	}
	o.host.stats.takeOver(held - o.p.held) // samples that others held are now ours to settle
	o.p.held = held
	if o.host.cfg.Rows != nil {
		o.offer(takeRows()) // no rows: the store learns how far this partition is
	}
	o.show(Serving)
	o.log.DebugContext(ctx, "serving", "epoch", o.epoch, "twins", len(o.twins))
	return o.serve(ctx)
}

// claim appends a Claim; its offset is the epoch (O1).
func (o *owner) claim(ctx context.Context) error {
	cfg := &o.host.cfg
	o.event = codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: o.host.cfg.Clock(),
		Claim: &codec.Claim{Node: cfg.Node, Incarnation: cfg.Incarnation, Nonce: cfg.Nonce()},
	}
	cfg.Changelog.Append(ctx, o.p.id, []Record{{Value: codec.AppendEvent(nil, &o.event)}}, o)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.p.box.wake:
		}
		o.refuseCalls()
		for _, a := range o.p.box.takeAcks(nil) {
			switch {
			case a.owner != o:
			case a.err != nil:
				return fmt.Errorf("claim: %w: %w", errAppend, a.err)
			case a.offset < 0:
				return fmt.Errorf("claim: %w: offset unknown", errAppend)
			default:
				o.epoch, o.prev = uint64(a.offset), a.offset
				return nil
			}
		}
	}
}

// leaveWithin bounds how long an owner that leaves waits for the log.
const leaveWithin = 6 * time.Second

// serve takes turns until the epoch or ctx ends. At the end of ctx it takes no more input and waits
// for what is in flight, so that devices get their acknowledgements (O9, without checkpoint yet).
func (o *owner) serve(ctx context.Context) error {
	timer := time.NewTicker(time.Duration(wheelTick))
	defer timer.Stop()
	done := ctx.Done()
	// What is in flight ends in order, also while leaving; but not even a log that hangs may hold us.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(leaveWithin, abandon) })()
	leaving := false
	for {
		select {
		case <-o.p.box.wake:
		case <-timer.C:
		case <-done:
			done, leaving = nil, true
		case <-work.Done():
			return fmt.Errorf("%d records unacknowledged at shutdown: %w", o.pend.len(), ctx.Err())
		}
		o.turn(work, leaving)
		if o.stopped != nil {
			return o.stopped
		}
		if leaving && o.pend.len() == 0 && o.out.letters == 0 {
			return ctx.Err()
		}
	}
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
		o.takeMessages(ctx)
		o.wheel.advance(o.now, o.look)
		o.idle.wheel.advance(o.now, o.wake)
		o.sweep()
		if o.now >= o.alerts.expiry {
			o.alerts.expire(o.now)
		}
	}
	if o.stopped == nil {
		o.append(ctx)
	}
	o.replies.flush()
	o.show(Serving)
}

// takeMessages applies what waits, as long as no more is in flight than may be.
func (o *owner) takeMessages(ctx context.Context) {
	if o.pend.len() >= o.host.cfg.InFlight {
		return
	}
	if len(o.todo) == 0 {
		o.msgs = o.p.box.takeMessages(o.msgs)
		if o.todo = o.msgs; len(o.todo) == 0 {
			return
		}
		o.host.cfg.Observe(StageRoute, time.Duration(o.now-o.todo[0].ReceivedAt))
	}
	done := 0
	for done < len(o.todo) && o.pend.len() < o.host.cfg.InFlight {
		o.message(ctx, &o.todo[done])
		done++
	}
	clear(o.todo[:done])
	o.todo = o.todo[done:]
	spent := o.host.cfg.Clock() - o.now
	o.host.cfg.Observe(StageApply, time.Duration(spent/int64(done)))
}

// look is called by the wheel when c may have something due. The owner, never the twin, decides that
// time has passed (P1), and logs it.
func (o *owner) look(c *cell) {
	for !c.quarantined {
		in, ok := c.twin.Wake(o.now, o.host.cfg.Limits)
		if !ok {
			break
		}
		o.event.Input = in
		gaps := c.twin.Counters().Gaps
		if !o.step(c) || !o.event.Effects.Outcome.Logged() {
			break
		}
		o.host.stats.Gaps.Add(c.twin.Counters().Gaps - gaps) // none where a numbering merely begins
		o.record(c)
	}
	o.wheel.schedule(c, c.twin.DueWithin(o.host.cfg.Limits))
}
