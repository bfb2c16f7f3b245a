package host

import (
	"context"
	"fmt"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

const (
	// defaultCheckpointAfter is how long a changed twin waits for its checkpoint, so that one stands
	// for many changes. It is also about how much log a restore replays.
	defaultCheckpointAfter = time.Minute
	// The rate of checkpoints. One costs about 9 µs of CPU, a record 5.5: one for so many records, and on
	// top, for fleets whose devices say little each, what writes all that wait within the horizon, and
	// at least so many a second on the whole node.
	recordsPerCheckpoint = 24
	checkpointHorizon    = float64(8 * time.Minute)
	checkpointsPerSecond = 1000
	checkpointsAtOnce    = 256
	// overdue is the age of a change from which on it is written at any rate (C4: within 10 minutes).
	overdue = int64(9 * time.Minute)
	// maxFlying bounds the records of doppel.state on their way, also while a node leaves.
	maxFlying = 2048

	stateSlabBytes = 64 << 10
)

// checkpoints is what an owner has to do in doppel.state (rules C1-C4). dirty and flying are in the
// order of their cursors, so the floor's start is found at their fronts.
type checkpoints struct {
	dirty  ring[dirtyTwin]
	flying ring[stateRecord]
	pinned Cursor // of twins that cannot be written, if Next is not 0; it only goes down

	n, acked uint64 // records appended to doppel.state and acknowledged in this epoch
	prev     int64  // last verified offset there (C3)
	read     int64  // last offset that the restore of this epoch read: the floor's V
	out      []Record
	slab     []byte

	credit  float64
	counted uint64 // o.n at the last look
	at      int64  // time of the last look

	floor floorState
	pass  rewrite
}

// dirtyTwin is a twin with released changes that no checkpoint includes.
type dirtyTwin struct {
	cell  *cell
	since Cursor // at the first of these changes
	at    int64  // when that was
}

// stateRecord is a checkpoint or a floor on its way. It was taken when after was the newest record of
// the changelog and leaves at the very moment that record is released: its asof is then exact (C1).
type stateRecord struct {
	after uint64
	since Cursor // a floor may not start behind it until this is acknowledged (C2)
	id    string // of the device
	twin  []byte
	floor *codec.Floor // instead

	endsPass bool // the floor is behind all that a rewrite has written
}

// stateAcks takes the acknowledgements of doppel.state.
type stateAcks struct{ o *owner }

// Ack implements Acks.
func (s stateAcks) Ack(n uint64, offset int64, err error) {
	s.o.p.box.ack(ack{owner: s.o, state: true, n: n, offset: offset, err: err})
}

// changed notes that c has changes from a cursor on that no checkpoint includes. at is when that was; 0:
// before this owner began, and it is written as soon as may be.
func (k *checkpoints) changed(c *cell, since Cursor, at int64) {
	if c.dirty {
		return
	}
	c.dirty = true
	*k.dirty.push() = dirtyTwin{cell: c, since: since, at: at}
}

// earn finds out how many checkpoints may be written now.
func (o *owner) earn() {
	k := &o.ckpt
	dt := float64(o.now - k.at)
	earned := float64(o.n-k.counted)/recordsPerCheckpoint + dt*float64(k.dirty.len())/checkpointHorizon +
		dt*checkpointsPerSecond/1e9/float64(o.host.cfg.Partitions)
	k.credit, k.counted, k.at = min(k.credit+earned, checkpointsAtOnce), o.n, o.now
}

// checkpoint takes the twins whose turn has come. hurry is for a node that leaves.
func (o *owner) checkpoint(hurry bool) {
	k := &o.ckpt
	for k.dirty.len() > 0 && k.flying.len() < maxFlying {
		d := k.dirty.front()
		age := o.now - d.at
		switch {
		case !d.cell.dirty: // a rewrite came first
			k.dirty.pop()
			continue
		case hurry:
		case age < int64(o.host.cfg.CheckpointAfter), k.credit < 1 && age < overdue:
			return
		}
		k.credit = max(k.credit-1, -checkpointsAtOnce) // what is overdue is written anyway, and does not cost all to come
		if d.cell.broken {
			k.pin(d.since)
		} else {
			o.takeTwin(d.cell, d.since)
		}
		k.dirty.pop()
	}
}

// takeTwin puts a hot twin as it is now on the way to doppel.state.
func (o *owner) takeTwin(c *cell, since Cursor) {
	o.anchor(c)
	k := &o.ckpt
	if c.broken { // just now: its memory is no state, and would hide the quarantine
		k.pin(since)
		return
	}
	from := k.room()
	k.slab = c.twin.EncodeCheckpoint(k.slab)
	c.dirty = false // what of it is in flight makes it dirty again: one checkpoint too many
	*k.flying.push() = stateRecord{after: o.n, since: since, id: c.id(), twin: k.slab[from:len(k.slab):len(k.slab)]}
	o.sendState()
}

// room makes sure of some room in the slab and returns where it begins. A slab lives until its records
// are acknowledged.
func (k *checkpoints) room() int {
	if cap(k.slab)-len(k.slab) < 4<<10 {
		k.slab = grown(k.slab, stateSlabBytes)
	}
	return len(k.slab)
}

func (k *checkpoints) pin(c Cursor) {
	if k.pinned.Next == 0 || c.Next < k.pinned.Next {
		k.pinned = c
	}
}

// sendState hands over what waited for the record just released.
func (o *owner) sendState() {
	k := &o.ckpt
	for unsent := k.n - k.acked; unsent < uint64(k.flying.len()); unsent++ {
		r := k.flying.at(k.flying.head + unsent)
		if r.after > o.released {
			return
		}
		k.n++
		from := k.room()
		key := codec.FloorKey
		at := codec.Cursor{Next: o.prev + 1, Epoch: o.epoch, N: o.released}
		if r.floor != nil {
			r.floor.LogOffset = o.prev
			k.slab = codec.AppendFloor(k.slab, r.floor)
		} else {
			key = r.id
			k.slab = codec.AppendCheckpoint(k.slab, &codec.Checkpoint{
				Epoch: o.epoch, Asof: o.prev, Cursor: at, Version: twin.EncodingVersion, Twin: r.twin, Alerts: o.alerts.of(r.id),
			})
			r.twin = nil
		}
		k.out = append(k.out, Record{N: k.n, Key: []byte(key), Value: k.slab[from:len(k.slab):len(k.slab)]})
	}
}

// flushState hands the records gathered in this turn to the log.
func (o *owner) flushState(ctx context.Context) {
	k := &o.ckpt
	if len(k.out) > 0 {
		o.host.cfg.State.Append(ctx, o.p.id, k.out, stateAcks{o})
		clear(k.out)
		k.out = k.out[:0]
	}
}

// stateAck handles one acknowledgement of doppel.state, in their order like those of the changelog.
func (o *owner) stateAck(ctx context.Context, a *ack) {
	k := &o.ckpt
	switch {
	case a.err != nil:
		o.stopped = fmt.Errorf("checkpoint %d: %w: %w", a.n, errAppend, a.err)
		return
	case a.n != k.acked+1 || a.offset <= k.prev:
		o.stopped = fmt.Errorf("checkpoint %d acknowledged at offset %d, expected %d behind %d: %w", a.n, a.offset, k.acked+1, k.prev, errAppend)
		return
	case a.offset > k.prev+1:
		if o.stopped = o.checkStateHole(ctx, k.prev+1, a.offset); o.stopped != nil {
			return
		}
	}
	k.prev, k.acked = a.offset, a.n
	r := k.flying.front()
	if r.floor != nil {
		o.floorKept(r.floor, r.endsPass)
	} else {
		o.host.stats.Checkpoints.Add(1)
	}
	k.flying.pop()
}

// checkStateHole looks at what others wrote between two records of ours (C3). A newer epoch means that
// we are stale. What an older one wrote may hide what we wrote before, so that is written anew.
func (o *owner) checkStateHole(ctx context.Context, from, to int64) error {
	var dec codec.CheckpointDecoder
	err := o.host.cfg.State.Read(ctx, o.p.id, from, to, func(r LogRecord) error {
		epoch, floor, err := stateEpoch(&dec, r)
		switch {
		case err != nil:
			o.host.stats.Void.Add(1)
			return nil //nolint:nilerr // foreign bytes are void
		case epoch > o.epoch:
			return fmt.Errorf("doppel.state has epoch %d at offset %d: %w", epoch, r.Offset, errFenced)
		case floor:
			o.ckpt.floor.again = true
		default:
			if c := o.find(string(r.Key)); c != nil {
				o.ckpt.changed(c, o.releasedTo(), o.now)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("hole %d-%d in doppel.state: %w", from, to-1, err)
	}
	return nil
}

// stateEpoch is the epoch of a record of doppel.state, and whether it is a floor.
func stateEpoch(dec *codec.CheckpointDecoder, r LogRecord) (epoch uint64, floor bool, err error) {
	if string(r.Key) == codec.FloorKey {
		f, err := codec.DecodeFloor(r.Value)
		return f.Epoch, true, err
	}
	var c codec.Checkpoint
	err = dec.Decode(r.Value, &c)
	return c.Epoch, false, err
}

// releasedTo is the cursor behind the last released record.
func (o *owner) releasedTo() Cursor {
	return Cursor{Next: o.prev + 1, Epoch: o.epoch, N: o.released}
}

// anchor logs the whole twin once a day, so that a replay can begin in the middle of the log.
func (o *owner) anchor(c *cell) {
	day := uint16(o.now / int64(24*time.Hour))
	if c.anchored == day {
		return
	}
	c.anchored = day
	o.event.Input = twin.Input{Kind: twin.KindAnchor}
	if !o.step(c) || !o.event.Effects.Outcome.Logged() {
		return
	}
	o.event.Anchor = c.twin.EncodeCheckpoint(nil)
	o.record(c).cell = nil // nothing to see, and no change
	o.event.Anchor = nil
}
