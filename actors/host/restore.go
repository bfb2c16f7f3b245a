package host

import (
	"context"
	"fmt"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// restore folds the log up to our claim into twins (S3): the same Step over the same inputs as when
// they were live. Records whose replay gives other results than were recorded are defects (R5).
//
// There are no checkpoints yet: the fold starts at offset 0 and refuses to start anywhere else.
func (o *owner) restore(ctx context.Context) error {
	cfg := &o.host.cfg
	start, _, err := cfg.Changelog.Bounds(ctx, o.p.id)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if start > 0 {
		return fmt.Errorf("partition %d: the changelog starts at offset %d, and no checkpoint covers what was removed: %w",
			o.p.id, start, errRefuseToServe)
	}
	var dec codec.EventDecoder
	var valid Validator
	claim := int64(o.epoch)
	err = cfg.Changelog.Read(ctx, o.p.id, 0, claim, func(r LogRecord) error {
		err := dec.Decode(r.Value, &o.event)
		if !valid.Valid(r.Offset, &o.event, err) {
			o.host.stats.Void.Add(1)
			return nil
		}
		if o.event.Kind != doppelv1.EventKind_EVENT_KIND_CLAIM {
			o.replay(r, &o.event)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	o.event = codec.Event{}
	o.offered = Cursor{Next: claim + 1, Epoch: o.epoch}
	return nil
}

// replay applies one valid record.
func (o *owner) replay(r LogRecord, recorded *codec.Event) {
	o.now = max(o.now, recorded.Now)
	c := o.twins[string(r.Key)]
	if c == nil {
		c = o.newCell(string(r.Key))
		o.adopt(c)
	}
	c.twin.AddDuplicates(recorded.Duplicates)
	fx := &o.replayed
	c.twin.Step(recorded.Now, &recorded.Input, o.host.cfg.Rules, fx)
	if !sameEffects(fx, &recorded.Effects) || c.twin.Digest() != recorded.Digest ||
		c.twin.SetDigest() != recorded.SetDigest || c.twin.Version() != recorded.Version {
		o.host.stats.ReplayDifferences.Add(1)
		o.log.Error("replay differs from the record", "device_id", c.id(), "offset", r.Offset,
			"digest", c.twin.Digest(), "recorded_digest", recorded.Digest,
			"version", c.twin.Version(), "recorded_version", recorded.Version)
	}
	for i := range fx.Transitions {
		o.alerts.apply(&Transition{Partition: o.p.id, Offset: r.Offset, Index: i, Device: c.id(), Alert: fx.Transitions[i]})
	}
	if on := c.twin.Online(); on != c.online {
		c.online = on
		o.twinsOn += sign(on)
	}
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
	o.p.view.Store(&View{
		ID: o.p.id, State: state, Epoch: int64(o.epoch),
		Twins: int64(len(o.twins) + len(o.idle.passive)), Passive: int64(len(o.idle.passive)), Online: o.twinsOn, OpenAlerts: int64(o.alerts.open), Next: o.prev + 1,
	})
}
