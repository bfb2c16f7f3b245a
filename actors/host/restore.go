package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// lateEffects are the transitions of one record that doppel.alerts may not have, and whom it leaves to be told.
type lateEffects struct {
	at          Cursor
	transitions []Transition
	tell        string // device that has to be told what is desired of it; empty: none
}

// restoration is a restore on its way: doppel.state up to an offset, and a fold of the log on top of it.
// A node may begin it before it owns the partition (warm.go): what counts is decided by the log in front
// of a record alone, so a fold of a prefix is the beginning of every later restore.
type restoration struct {
	o     *owner
	read  int64            // end of what was read of doppel.state
	known map[uint64]int64 // epochs met there, with the highest offset each of them names (S1)

	floor   codec.Floor // the one that spares the most work
	floored bool
	hidden  bool              // a later one stands in front of it, and will outlive it
	origins map[string]origin // of the newest checkpoints, until the start is found
	// covered are the devices whose checkpoint a stale owner may have written, with the last offset it includes.
	covered map[string]int64

	settledAt int64 // offset of the last record that says whether the partition is settled, and what it says
	unsettled bool

	valid Validator
	dec   codec.EventDecoder
	emit  []lateEffects

	ahead *lead // of a restore that begins before the claim; else nil
}

// origin says where a checkpoint comes from.
type origin struct {
	offset int64
	epoch  uint64
	asof   int64
	cursor Cursor
}

// restore makes the twins as of our claim: the newest checkpoints, and on top of them a fold of the
// log by the same Step over the same inputs as when they were live (S1-S3). Records whose replay
// gives other results than were recorded are defects (R5). It returns the effects to emit again (S4).
func (o *owner) restore(ctx context.Context) ([]lateEffects, error) {
	r := o.p.takeWarm()
	if r != nil {
		r.adoptBy(o)
	} else {
		r = newRestoration(o)
	}
	err := r.complete(ctx)
	if errors.Is(err, errCold) {
		o.log.InfoContext(ctx, "what was read ahead is of no use", "epoch", o.epoch, "err", err)
		o.forget()
		r = newRestoration(o)
		err = r.complete(ctx)
	}
	switch {
	case errors.Is(err, errRefuseToServe):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("restore: %w", err)
	case r.ahead != nil:
		o.host.stats.Warm.Add(1)
	}
	o.event = codec.Event{}
	o.logged = o.src
	o.offered = Cursor{Next: int64(o.epoch) + 1, Epoch: o.epoch}
	return r.emit, nil
}

func newRestoration(o *owner) *restoration {
	return &restoration{o: o, known: make(map[uint64]int64), origins: make(map[string]origin), covered: make(map[string]int64)}
}

// complete goes on to our claim.
func (r *restoration) complete(ctx context.Context) error {
	o, k := r.o, &r.o.ckpt
	stateStart, logStart, logEnd, err := r.readState(ctx)
	if err != nil {
		return err
	}
	for _, epoch := range slices.Sorted(maps.Keys(r.known)) {
		if err := o.checkEpoch(epoch, r.known[epoch], logEnd); err != nil {
			return err
		}
	}
	k.prev, k.read, k.pass.done = r.read-1, r.read-1, stateStart
	k.floor.kept, k.floor.again = r.floor, r.hidden
	switch {
	case r.ahead == nil:
		r.plan(logStart)
		if r.valid.Next < logStart {
			return fmt.Errorf("partition %d: the changelog starts at offset %d, and its state is complete only from %d on: "+
				"retention removed records that were still needed: %w", o.p.id, logStart, r.valid.Next, errRefuseToServe)
		}
	case r.valid.Next < logStart, r.valid.Next > int64(o.epoch):
		return fmt.Errorf("read ahead to offset %d, the log is there from %d to %d: %w", r.valid.Next, logStart, o.epoch, errCold)
	}
	if behind(r.floor.State.SrcNext, o.src) {
		o.src = r.floor.State.SrcNext
	}
	o.now = max(o.now, r.floor.State.Now)
	if err := r.fold(ctx, int64(o.epoch)); err != nil {
		return err
	}
	if o.settled.logged = r.unsettled; r.settledAt <= r.floor.LogOffset {
		o.settled.logged = r.floor.State.Unsettled
	}
	if r.ahead != nil {
		r.settle()
	}
	return nil
}

// partition takes a record that is of no twin.
func (r *restoration) partition(offset int64, ev *codec.Event) {
	switch ev.Kind { //nolint:exhaustive // the others say nothing of it
	case doppelv1.EventKind_EVENT_KIND_RULES:
		if ev.N == 1 {
			r.o.laws.supersede()
		}
		r.o.enact(offset, r.o.host.compile(ev.Rules))
	case doppelv1.EventKind_EVENT_KIND_UNSETTLED:
		r.settledAt, r.unsettled = offset, true
	case doppelv1.EventKind_EVENT_KIND_SETTLED:
		r.settledAt, r.unsettled = offset, false
	}
}

// readState reads what of doppel.state was not read yet. It returns where it starts, and the bounds of the
// changelog, asked for second: an epoch below the end of the state has its claim below the end of the log.
func (r *restoration) readState(ctx context.Context) (stateStart, logStart, logEnd int64, err error) {
	cfg, p := &r.o.host.cfg, r.o.p.id
	stateStart, end, err := cfg.State.Bounds(ctx, p)
	if err != nil {
		return 0, 0, 0, err
	}
	if logStart, logEnd, err = cfg.Changelog.Bounds(ctx, p); err != nil {
		return 0, 0, 0, err
	}
	var dec codec.CheckpointDecoder
	var c codec.Checkpoint
	err = cfg.State.Read(ctx, p, max(r.read, stateStart), end, func(rec LogRecord) error {
		switch {
		case string(rec.Key) == codec.FloorKey:
			f, err := codec.DecodeFloor(rec.Value)
			if err != nil {
				r.o.host.stats.Void.Add(1)
				return nil //nolint:nilerr // foreign bytes are void
			}
			r.meet(f.Epoch, f.LogOffset)
			if r.hidden = r.floored && f.Start.Next < r.floor.Start.Next; !r.hidden { // all are true; this one spares the most work
				r.floor, r.floored = f, true
			}
		case dec.Decode(rec.Value, &c) != nil || len(c.Twin) == 0 || !codec.ValidDevice(rec.Key):
			r.o.host.stats.Void.Add(1) // foreign bytes are void
		default:
			r.meet(c.Epoch, c.Asof)
			r.checkpoint(rec, &c)
		}
		return nil
	})
	r.read = max(r.read, end)
	return stateStart, logStart, logEnd, err
}

// meet notes what doppel.state says of an epoch.
func (r *restoration) meet(epoch uint64, asof int64) {
	if had, ok := r.known[epoch]; !ok || asof > had {
		r.known[epoch] = asof
	}
}

// checkpoint makes a passive twin of a checkpoint.
func (r *restoration) checkpoint(rec LogRecord, c *codec.Checkpoint) {
	o, from := r.o, origin{rec.Offset, c.Epoch, c.Asof, Cursor(c.Cursor)}
	if r.ahead != nil && r.ahead.knows(o, rec.Key, from) {
		return
	}
	p := &passive{memory: string(rec.Key) + string(c.Twin), idLen: uint8(len(rec.Key)), asof: c.Asof}
	if old := o.idle.passive[p.id()]; old != nil {
		delete(o.idle.passive, p.id()) // the key's memory is the old twin's
		delete(r.origins, p.id())
	}
	o.idle.passive[p.id()] = p
	if r.origins != nil {
		r.origins[p.id()] = from
	}
	if len(c.Alerts) > 0 || len(o.alerts.byDevice) > 0 {
		o.alerts.load(strings.Clone(p.id()), c.Alerts) // not with the whole twin in its memory
	}
}

// plan finds where the fold must start (S2); without a floor at offset 0.
func (r *restoration) plan(logStart int64) {
	o := r.o
	if r.floored {
		o.enact(r.floor.State.RulesAt, o.host.compile(r.floor.State.Rules))
		start := Cursor(r.floor.Start)
		for id, from := range r.origins {
			if from.offset > r.floor.StateOffset && from.epoch != r.floor.Epoch {
				start = lower(start, from.cursor)
				r.covered[id] = from.asof
			}
		}
		for _, id := range slices.Sorted(maps.Keys(r.covered)) {
			o.ckpt.changed(o.find(id), start, 0)
		}
		r.valid.Cursor = r.underRules(start, logStart)
	}
	r.origins = nil
}

// underRules is where the fold must start so that the rules in force there are known. The floor knows them
// from its own start on; in front of that their epoch is read from its claim.
func (r *restoration) underRules(start Cursor, logStart int64) Cursor {
	switch claim := int64(start.Epoch); {
	case start.Next > r.floor.State.RulesAt || start.Next == r.floor.Start.Next:
		return start
	case claim >= logStart:
		return Cursor{Next: claim}
	default:
		r.o.log.Error("retention removed the rules that an old checkpoint was written under: the newer ones stand for them", "offset", start.Next)
		return start
	}
}

// fold replays the log up to offset to.
func (r *restoration) fold(ctx context.Context, to int64) error {
	o := r.o
	return o.host.cfg.Changelog.Read(ctx, o.p.id, r.valid.Next, to, func(rec LogRecord) error {
		at := Cursor{Next: rec.Offset, Epoch: r.valid.Epoch, N: r.valid.N}
		err := r.dec.Decode(rec.Value, &o.event)
		if !r.valid.Valid(rec.Offset, &o.event, err) {
			o.host.stats.Void.Add(1)
			return nil
		}
		if o.event.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM {
			o.enact(rec.Offset, o.host.base)
			return nil
		}
		o.now = max(o.now, o.event.Now)
		if p := o.event.SrcNext; behind(p, o.src) {
			o.src = p
		}
		if o.event.OfPartition() || len(rec.Key) == 0 {
			r.partition(rec.Offset, &o.event)
			return nil
		}
		if r.ahead != nil && r.ahead.lacks(o, rec.Key, &o.event) {
			return fmt.Errorf("offset %d is not the first of %q, and its checkpoint was not there: %w", rec.Offset, rec.Key, errCold)
		}
		o.host.stats.Replayed.Add(1)
		c := o.replay(rec, &o.event, at, r.covered[string(rec.Key)])
		if c != nil && r.ahead != nil {
			r.ahead.touched[c] = rec.Offset
		}
		if fx := &o.event.Effects; (len(fx.Transitions) > 0 || fx.Tell) && rec.Offset >= r.floor.EffectsNext {
			late := lateEffects{at: at, transitions: transitionsOf(o.p.id, rec.Offset, string(rec.Key), fx.Transitions)}
			if fx.Tell {
				late.tell = string(rec.Key)
			}
			r.emit = append(r.emit, late)
		}
		return nil
	})
}

// checkEpoch refuses what doppel.state cannot hold while our claim is the newest (S1). We have written
// nothing there yet: what has our epoch is of another log, whose first claim stood at offset 0, too.
func (o *owner) checkEpoch(epoch uint64, asof, logEnd int64) error {
	switch {
	case epoch == o.epoch, epoch > o.epoch && epoch >= uint64(logEnd), epoch < o.epoch && asof >= int64(o.epoch):
		return fmt.Errorf("partition %d: doppel.state knows epoch %d and offset %d of a changelog that ends at %d: "+
			"the changelog was made anew or lost its end, and twins would go back in time; restore it, or begin with another --topic-prefix: %w",
			o.p.id, epoch, asof, logEnd, errRefuseToServe)
	case epoch > o.epoch:
		return fmt.Errorf("doppel.state has epoch %d: %w", epoch, errFenced)
	}
	return nil
}

// wakeUp finds out what restored twins wait for, and how many samples they hold.
func (o *owner) wakeUp() (held int64) {
	for _, c := range o.twins {
		o.host.engine.SpawnProc(c)
	}
	var holding []*passive
	for _, id := range slices.Sorted(maps.Keys(o.idle.passive)) {
		p := o.idle.passive[id]
		p.asof = 0
		t := &o.idle.read
		if !o.decode(t, id, p) {
			o.roster.enterPassive(p, nil)
			continue
		}
		if t.HeldSince() != 0 {
			holding = append(holding, p)
			continue
		}
		if t.Online() {
			o.twinsOn++
		}
		if p.deleted = t.Deleted(); p.deleted {
			o.tombs++
			o.idle.tombs++
		}
		if o.host.cfg.DesiredAnew && t.DesiredVersion() > 0 {
			o.anew = append(o.anew, p.id())
		}
		o.roster.enterPassive(p, t)
		o.idle.wheel.schedule(p, o.dueOf(t))
	}
	for _, p := range holding { // how long they may wait will change when ingest is read
		o.activate(p)
	}
	for _, id := range slices.Sorted(maps.Keys(o.twins)) {
		c := o.twins[id]
		if c.online = c.twin.Online(); c.online {
			o.twinsOn++
		}
		if c.place == 0 { // those that were just woken have one
			o.roster.enter(c)
		}
		if c.deleted = c.twin.Deleted(); c.deleted {
			o.tombs++
		}
		if o.host.cfg.DesiredAnew && c.twin.DesiredVersion() > 0 {
			o.anew = append(o.anew, id)
		}
		o.wheel.schedule(c, o.dueOf(&c.twin))
		held += int64(c.twin.Counters().Held)
	}
	return held
}

func transitionsOf(p int32, offset int64, device string, alerts []alert.Alert) []Transition {
	ts := make([]Transition, len(alerts))
	for i := range alerts {
		ts[i] = Transition{Partition: p, Offset: offset, Index: i, Device: device, Alert: alerts[i]}
	}
	return ts
}

// replay applies one valid record, at the cursor in front of it, unless the checkpoint that its twin
// was made hot from includes it: all up to covered. It returns the twin, nil if it was not applied.
func (o *owner) replay(r LogRecord, recorded *codec.Event, at Cursor, covered int64) *cell {
	if r.Offset <= covered {
		return nil
	}
	c := o.twins[string(r.Key)]
	if c == nil {
		if p := o.idle.passive[string(r.Key)]; p != nil && p.asof >= r.Offset {
			return nil // its checkpoint includes it
		}
		if c = o.find(string(r.Key)); c == nil {
			c = o.newCell(string(r.Key))
			c.twin = *twin.New(c.id(), recorded.Now) // o.now may be the floor's, which is later
			o.adopt(c)
		}
	}
	o.ckpt.changed(c, at, 0)
	fx := &o.replayed
	what := replay(&c.twin, recorded, o.rules.Alerts, fx)
	c.quarantined = c.broken || c.twin.Quarantined() // broken: its checkpoint cannot be read
	if what != "" {
		o.host.stats.ReplayDifferences.Add(1)
		o.log.Error("replay differs from the record", "device_id", c.id(), "offset", r.Offset, "difference", what)
	}
	for i := range fx.Transitions {
		o.alerts.apply(&Transition{Device: c.id(), Alert: fx.Transitions[i]})
	}
	return c
}

// behind says that a lies behind b in ingest.
func behind(a, b codec.Position) bool {
	return a.Offset > b.Offset || a.Offset == b.Offset && a.Index > b.Index
}

// Validator decides which records of a partition count (R1-R3). The zero value starts at offset 0;
// anywhere else it must start from a stored cursor (R4).
type Validator struct {
	Cursor
}

// Valid says whether the record at offset counts, given what decoding it gave. Records must come in
// order. A Claim counts and opens its epoch.
func (v *Validator) Valid(offset int64, ev *codec.Event, err error) bool {
	v.Next = offset + 1
	switch {
	case err != nil:
		return false
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
		v.Epoch, v.N = uint64(offset), 0
		return true
	case ev.Epoch != v.Epoch || ev.N != v.N+1:
		return false
	}
	v.N = ev.N
	return true
}

// shown is what the partition's view was made from, and when.
type shown struct {
	n, released uint64
	passive     int
	state       PartitionState
	settled     bool
	at          int64
}

// show publishes what the partition is doing, for queries about the node: a change of state at once,
// counts once a tick, since a busy partition takes a turn for every few messages.
func (o *owner) show(state PartitionState) {
	switch {
	case state != o.shown.state, o.settled.now != o.shown.settled:
	case o.n == o.shown.n && o.released == o.shown.released && len(o.idle.passive) == o.shown.passive, o.now-o.shown.at < wheelTick:
		return
	}
	o.shown = shown{o.n, o.released, len(o.idle.passive), state, o.settled.now, o.now}
	o.p.show(&View{
		ID: o.p.id, State: state, Epoch: int64(o.epoch),
		Twins: int64(len(o.twins)+len(o.idle.passive)) - o.tombs, Passive: int64(len(o.idle.passive)) - o.idle.tombs, Online: o.twinsOn, OpenAlerts: int64(o.alerts.open), Next: o.prev + 1,
		Unsettled: state == Serving && !o.settled.now, Ingest: int64(o.src.Offset),
	})
}
