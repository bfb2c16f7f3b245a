package host

import (
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
)

// floorEvery is how often a partition writes a floor at most, unless checkpoints come more often.
const floorEvery = int64(5 * time.Second)

// rulesPerFloor is how many bytes of rules, which each floor carries, make floors twice as rare.
const rulesPerFloor = 16 << 10

// floorState is what an owner knows of its floors.
type floorState struct {
	under bool // one is on its way
	again bool // an older one may hide ours: write it anew (C3)
	next  int64
	kept  codec.Floor // the last acknowledged one
}

// floorStart is the floor's S: no released change below it is missing in the acknowledged checkpoints
// (C2), and no effect below it is unacknowledged, so that a restore that starts there meets all of these.
func (o *owner) floorStart() Cursor {
	k, s := &o.ckpt, o.releasedTo()
	if k.flying.len() > 0 {
		s = lower(s, k.flying.front().since)
	}
	if k.dirty.len() > 0 {
		s = lower(s, k.dirty.front().since)
	}
	if k.pinned.Next != 0 {
		s = lower(s, k.pinned)
	}
	return lower(s, o.effectsNext())
}

func lower(a, b Cursor) Cursor {
	if b.Next < a.Next {
		return b
	}
	return a
}

// takeFloor puts a floor on its way if it says more than the last one. The partition's own state is
// taken now and leaves with the release of all that is in flight, like a twin's (its P).
func (o *owner) takeFloor(hurry bool) {
	f := &o.ckpt.floor
	if f.under || (!hurry && o.now < f.next) {
		return
	}
	f.next = o.now + min(floorEvery, int64(o.host.cfg.CheckpointAfter))
	o.giveUpTellings()
	start := o.floorStart()
	if !f.again && !o.ckpt.pass.taken && start.Next == f.kept.Start.Next && o.src == f.kept.State.SrcNext {
		return
	}
	f.under, f.again = true, false
	state := codec.PartitionState{SrcNext: o.src, Now: o.now, Unsettled: o.settled.logged}
	if l, ok := o.laws.at(start.Next); ok {
		state.Rules, state.RulesOffset, state.RulesAt = l.set.Encoded, l.set.Offset, max(0, l.from)
		f.next += floorEvery * int64(len(state.Rules)) / rulesPerFloor
	}
	*o.ckpt.flying.push() = stateRecord{after: o.n, since: start, endsPass: o.ckpt.pass.taken, floor: &codec.Floor{
		Epoch: o.epoch, Start: codec.Cursor(start), StateOffset: o.ckpt.read,
		State:       state,
		EffectsNext: o.effectsNext().Next,
	}}
	o.sendState()
}

// floorKept takes note of an acknowledged floor: nothing below it is needed any more.
func (o *owner) floorKept(f *codec.Floor, endsPass bool) {
	k := &o.ckpt
	if endsPass {
		k.pass.end()
	}
	k.floor.kept, k.floor.under = *f, false
	o.host.stats.Floors.Add(1)
	if o.host.cfg.Retention != nil {
		o.host.cfg.Retention.Needs(o.p.id, Needs{
			Changelog: Cursor(f.Start), State: k.pass.done, Ingest: int64(f.State.SrcNext.Offset),
		})
	}
}
