package host

import (
	"context"
	"fmt"
	"strings"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// lateEffects are the transitions of one record that doppel.alerts may not have.
type lateEffects struct {
	at          Cursor
	transitions []Transition
}

// restore makes the twins as of our claim: the newest checkpoints, and on top of them a fold of the
// log by the same Step over the same inputs as when they were live (S1-S3). Records whose replay
// gives other results than were recorded are defects (R5). It returns the effects to emit again (S4).
func (o *owner) restore(ctx context.Context) (emit []lateEffects, err error) {
	cfg := &o.host.cfg
	stateStart, stateEnd, err := cfg.State.Bounds(ctx, o.p.id)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	// Asked second: an epoch below the end of the state then has its claim below the end of the log.
	logStart, logEnd, err := cfg.Changelog.Bounds(ctx, o.p.id)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	saved, err := o.readState(ctx, stateStart, stateEnd, logEnd)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if saved.start.Next < logStart {
		return nil, fmt.Errorf("partition %d: the changelog starts at offset %d, and its state is complete only from %d on: "+
			"retention removed records that were still needed: %w", o.p.id, logStart, saved.start.Next, errRefuseToServe)
	}
	for id := range saved.dirty {
		o.ckpt.changed(o.find(id), saved.start, 0)
	}
	var dec codec.EventDecoder
	valid, claim := Validator{saved.start}, int64(o.epoch)
	err = cfg.Changelog.Read(ctx, o.p.id, saved.start.Next, claim, func(r LogRecord) error {
		at := Cursor{Next: r.Offset, Epoch: valid.Epoch, N: valid.N}
		err := dec.Decode(r.Value, &o.event)
		if !valid.Valid(r.Offset, &o.event, err) {
			o.host.stats.Void.Add(1)
			return nil
		}
		if o.event.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM || len(r.Key) == 0 {
			return nil
		}
		o.host.stats.Replayed.Add(1)
		o.replay(r, &o.event, at, saved.dirty[string(r.Key)])
		if ts := o.event.Effects.Transitions; len(ts) > 0 && r.Offset >= saved.effects {
			emit = append(emit, lateEffects{at, transitionsOf(o.p.id, r.Offset, string(r.Key), ts)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	o.event = codec.Event{}
	o.logged = o.src
	o.offered = Cursor{Next: claim + 1, Epoch: o.epoch}
	return emit, nil
}

// savedState is what doppel.state says besides the twins.
type savedState struct {
	start   Cursor // of the replay
	effects int64  // offset of the changelog from which on effects may be unknown
	// dirty are the devices whose checkpoint a stale owner may have written, with the last offset it includes.
	dirty map[string]int64
}

// origin says where a checkpoint comes from.
type origin struct {
	offset int64
	epoch  uint64
	cursor Cursor
}

// readState reads the newest checkpoints into passive twins, and finds where replay must start (S1, S2).
// from and end are the bounds of doppel.state, logEnd is the end of the changelog.
func (o *owner) readState(ctx context.Context, from, end, logEnd int64) (savedState, error) {
	var saved savedState
	k := &o.ckpt
	k.prev, k.read, k.pass.done = end-1, end-1, from
	var (
		dec     codec.CheckpointDecoder
		c       codec.Checkpoint
		floor   codec.Floor
		floored bool
	)
	origins := make(map[string]origin)
	err := o.host.cfg.State.Read(ctx, o.p.id, from, end, func(r LogRecord) error {
		if string(r.Key) == codec.FloorKey {
			f, err := codec.DecodeFloor(r.Value)
			if err != nil {
				o.host.stats.Void.Add(1)
				return nil //nolint:nilerr // foreign bytes are void
			}
			if !floored || f.Start.Next >= floor.Start.Next { // all are true; this one spares the most work
				floor, floored = f, true
			}
			return o.checkEpoch(f.Epoch, f.LogOffset, logEnd)
		}
		if dec.Decode(r.Value, &c) != nil || len(c.Twin) == 0 || !codec.ValidDevice(r.Key) {
			o.host.stats.Void.Add(1)
			return nil //nolint:nilerr // foreign bytes are void
		}
		if err := o.checkEpoch(c.Epoch, c.Asof, logEnd); err != nil {
			return err
		}
		p := &passive{memory: string(r.Key) + string(c.Twin), idLen: uint8(len(r.Key)), asof: c.Asof}
		if old := o.idle.passive[p.id()]; old != nil {
			delete(o.idle.passive, p.id()) // the key's memory is the old twin's
			delete(origins, p.id())
		}
		o.idle.passive[p.id()] = p
		origins[p.id()] = origin{r.Offset, c.Epoch, Cursor(c.Cursor)}
		if len(c.Alerts) > 0 || len(o.alerts.byDevice) > 0 {
			o.alerts.load(strings.Clone(p.id()), c.Alerts) // not with the whole twin in its memory
		}
		return nil
	})
	if err != nil || !floored { // without a floor replay starts at offset 0
		return saved, err
	}
	saved.start, saved.effects, saved.dirty = Cursor(floor.Start), floor.EffectsNext, make(map[string]int64)
	o.src, o.now = floor.State.SrcNext, floor.State.Now
	k.floor.kept = floor
	for id, from := range origins {
		if from.offset > floor.StateOffset && from.epoch != floor.Epoch {
			saved.start = lower(saved.start, from.cursor)
			saved.dirty[id] = o.idle.passive[id].asof
		}
	}
	return saved, nil
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
	var holding []*passive
	for id, p := range o.idle.passive {
		p.asof = 0
		t := &o.idle.read
		if !o.decode(t, id, p) {
			continue
		}
		if t.Online() {
			o.twinsOn++
		}
		if t.HeldSince() != 0 {
			holding = append(holding, p)
			continue
		}
		o.idle.wheel.schedule(p, o.dueOf(t))
	}
	for _, p := range holding { // how long they may wait will change when ingest is read
		o.activate(p)
	}
	for _, c := range o.twins {
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
// was made hot from includes it: all up to covered.
func (o *owner) replay(r LogRecord, recorded *codec.Event, at Cursor, covered int64) {
	o.now = max(o.now, recorded.Now)
	if p := recorded.SrcNext; behind(p, o.src) {
		o.src = p
	}
	if r.Offset <= covered {
		return
	}
	c := o.twins[string(r.Key)]
	if c == nil {
		if p := o.idle.passive[string(r.Key)]; p != nil && p.asof >= r.Offset {
			return // its checkpoint includes it
		}
		if c = o.find(string(r.Key)); c == nil {
			c = o.newCell(string(r.Key))
			c.twin = *twin.New(c.id(), recorded.Now) // o.now may be the floor's, which is later
			o.adopt(c)
		}
	}
	o.ckpt.changed(c, at, 0)
	fx := &o.replayed
	what := replay(&c.twin, recorded, o.host.cfg.Rules, fx)
	c.quarantined = c.broken || c.twin.Quarantined() // broken: its checkpoint cannot be read
	if what != "" {
		o.host.stats.ReplayDifferences.Add(1)
		o.log.Error("replay differs from the record", "device_id", c.id(), "offset", r.Offset, "difference", what)
	}
	for i := range fx.Transitions {
		o.alerts.apply(&Transition{Device: c.id(), Alert: fx.Transitions[i]})
	}
	if on := c.twin.Online(); on != c.online {
		c.online = on
		o.twinsOn += sign(on)
	}
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
	at          int64
}

// show publishes what the partition is doing, for queries about the node: a change of state at once,
// counts once a tick, since a busy partition takes a turn for every few messages.
func (o *owner) show(state PartitionState) {
	switch {
	case state != o.shown.state:
	case o.n == o.shown.n && o.released == o.shown.released && len(o.idle.passive) == o.shown.passive, o.now-o.shown.at < wheelTick:
		return
	}
	o.shown = shown{o.n, o.released, len(o.idle.passive), state, o.now}
	o.p.show(&View{
		ID: o.p.id, State: state, Epoch: int64(o.epoch),
		Twins: int64(len(o.twins) + len(o.idle.passive)), Passive: int64(len(o.idle.passive)), Online: o.twinsOn, OpenAlerts: int64(o.alerts.open), Next: o.prev + 1, Ingest: int64(o.src.Offset),
	})
}
