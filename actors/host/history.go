package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// The past of a twin is the fold of the log up to then. The log is read from the oldest record that is
// still there, so a fold covers all that can be covered: from offset 0 every twin's whole life; from
// anywhere else a twin begins with its first record, with the oldest anchor met, or, where the log has
// neither, with its checkpoint. One device costs a reading of its whole partition: records are not
// indexed by device.

var (
	// ErrNotRetained answers for a past that the log no longer has.
	ErrNotRetained = errors.New("the log no longer reaches back that far")
	// ErrFuture answers for a version or a time that has not come.
	ErrFuture = errors.New("that is in the future")
)

// errStop ends a reading of the log early.
var errStop = errors.New("far enough")

// clockSkew is how far ahead of our clock a time may lie and still mean now.
const clockSkew = int64(time.Minute)

// AsOf is a moment in a twin's past: the state after its record of a version, or after its last record
// applied at or before Time by its owner's clock, as logged. Exactly one is set.
type AsOf struct {
	Version uint64
	Time    int64 // unix nanoseconds
}

// Replay is what a replay of a twin gave.
type Replay struct {
	Equal      bool
	Difference string    // the first; empty: none
	Start      FoldStart // where the fold began
	Next       int64     // offset behind the last record included
	Inputs     uint64
	Version    uint64
	Hash       uint64 // state hash of the replayed twin
}

// Replay folds the log of a device again, up to the live twin's newest released record, and compares
// all that is recorded on the way and the state at the end, bit for bit.
func (h *Host) Replay(ctx context.Context, p int32, device string) (Replay, error) {
	f, err := h.past(ctx, p, device)
	if err != nil {
		return Replay{}, err
	}
	live, err := h.capture(ctx, p, device)
	if err != nil {
		return Replay{}, err
	}
	if live.twin.Deleted() {
		return Replay{}, fmt.Errorf("replay %q: %w", device, ErrUnknownDevice)
	}
	if err := f.read(ctx, live.next, nil); err != nil {
		return Replay{}, err
	}
	d := f.find(device)
	if d == nil {
		return Replay{}, fmt.Errorf("replay %q: its records begin before offset %d: %w", device, f.start.Next, ErrNotRetained)
	}
	r := Replay{
		Start: d.began, Next: live.next, Inputs: f.Stats.Inputs, Version: d.twin.Version(), Hash: d.twin.Hash(),
	}
	switch {
	case f.First != nil:
		r.Difference = fmt.Sprintf("offset %d: %s", f.First.Offset, f.First.What)
	case r.Hash != live.twin.Hash():
		r.Difference = "live twin: " + stateDiffers(&d.twin, &live.twin, "live")
	}
	r.Equal = r.Difference == ""
	return r, nil
}

// TwinAsOf is the twin of a device as it was, all that was derived included. Owner and epoch are those
// of that time.
func (h *Host) TwinAsOf(ctx context.Context, p int32, device string, at AsOf) (*doppelv1.Twin, error) {
	f, err := h.past(ctx, p, device)
	if err != nil {
		return nil, err
	}
	live, err := h.capture(ctx, p, device)
	if err != nil {
		return nil, err
	}
	timed := at.Version == 0
	switch {
	case live.twin.Deleted() && (at.Version == live.twin.Version() || timed && at.Time >= live.now):
		return nil, fmt.Errorf("twin %q: %w", device, ErrUnknownDevice)
	case at.Version > live.twin.Version():
		return nil, fmt.Errorf("twin %q is at version %d: %w", device, live.twin.Version(), ErrFuture)
	case timed && at.Time > live.now+clockSkew:
		return nil, fmt.Errorf("it is %s: %w", timeText(live.now), ErrFuture)
	case at.Version == live.twin.Version(), timed && at.Time >= live.now:
		return live.proto, nil
	case timed && at.Time < live.twin.CreateTime() && live.twin.Lives() == 0:
		return nil, fmt.Errorf("twin %q was made at %s: %w", device, timeText(live.twin.CreateTime()), ErrUnknownDevice)
	}
	var node string
	var epoch uint64
	err = f.read(ctx, live.next, func(r LogRecord) bool {
		if timed && f.event.Now > at.Time {
			return true
		}
		if d := f.twins[device]; !timed && d != nil && d.asof < r.Offset && d.twin.Version() >= at.Version {
			return true
		}
		node, epoch = f.node, f.valid.Epoch
		return false
	})
	if err != nil {
		return nil, err
	}
	d := f.find(device)
	if d == nil || timed && f.first > at.Time || !timed && d.twin.Version() != at.Version {
		return nil, fmt.Errorf("twin %q: %w: what is left starts at offset %d", device, ErrNotRetained, f.start.Next)
	}
	if d.twin.Deleted() {
		return nil, fmt.Errorf("twin %q was deleted by then: %w", device, ErrUnknownDevice)
	}
	t := codec.Twin(&d.twin)
	t.Owner, t.Epoch = node, epoch
	return t, nil
}

func timeText(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// captured is a live twin at one moment.
type captured struct {
	twin  twin.Twin
	proto *doppelv1.Twin
	now   int64
	next  int64 // offset behind the last record included
}

// capture copies the live twin of a device as of a released record.
func (h *Host) capture(ctx context.Context, p int32, device string) (*captured, error) {
	var c captured
	var encoded []byte
	var found, broken bool
	next, err := h.moment(ctx, p, func(o *owner) {
		c.now = o.now
		if live := o.twins[device]; live != nil {
			found, broken = true, live.quarantined && !live.twin.Quarantined()
			encoded, c.proto = live.twin.Encode(nil), o.proto(&live.twin, live.quarantined)
		} else if idle := o.idle.passive[device]; idle != nil {
			found, encoded = true, []byte(idle.encoded())
			ok := o.decode(&o.idle.read, device, idle)
			broken, c.proto = !ok, o.proto(&o.idle.read, !ok)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, fmt.Errorf("twin %q: %w", device, ErrUnknownDevice)
	case broken:
		return nil, ErrUnavailable
	}
	c.next = next
	if err := c.twin.Decode(device, encoded, nil); err != nil {
		return nil, fmt.Errorf("copy of a live twin: %w", err)
	}
	return &c, nil
}

// past is a fold of what the log still has of a partition, on its way.
type past struct {
	*Fold
	host  *Host
	p     int32
	start Cursor
}

// past prepares a fold of partition p, of one device or (empty) of all. Checkpoints are read before
// the live state is looked at, so that none is ahead of it.
func (h *Host) past(ctx context.Context, p int32, device string) (*past, error) {
	start, _, err := h.cfg.Changelog.Bounds(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("history of p%d: %w", p, err)
	}
	from := FromFirstClaim(start)
	if h.cfg.Retention != nil {
		if c, ok := h.cfg.Retention.Oldest(p); ok && c.Next >= start {
			from = c
		}
	}
	f := &past{Fold: NewFold(h.base.Alerts, from, device), host: h, p: p, start: from}
	f.compiler = h.compiler
	if from.Next > 0 && from.Epoch != noEpoch { // else it begins with a Claim
		set, err := h.rulesAt(ctx, p, from.Next)
		if err != nil {
			return nil, fmt.Errorf("history of p%d: %w", p, err)
		}
		if f.rules = nil; set != nil {
			f.rules = set.Alerts
		}
	}
	if f.whole || h.cfg.State == nil {
		return f, nil
	}
	return f, f.checkpoints(ctx)
}

// checkpoints gives the fold the beginnings that doppel.state has.
func (f *past) checkpoints(ctx context.Context) error {
	state := f.host.cfg.State
	start, end, err := state.Bounds(ctx, f.p)
	if err != nil {
		return fmt.Errorf("checkpoints of p%d: %w", f.p, err)
	}
	var dec codec.CheckpointDecoder
	var c codec.Checkpoint
	err = state.Read(ctx, f.p, start, end, func(r LogRecord) error {
		switch {
		case string(r.Key) == codec.FloorKey, f.device != "" && string(r.Key) != f.device:
		case len(r.Value) == 0:
			f.Forget(string(r.Key))
		case dec.Decode(r.Value, &c) == nil: // foreign bytes are void
			return f.Begin(strings.Clone(string(r.Key)), c.Asof, c.Twin)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checkpoints of p%d: %w", f.p, err)
	}
	return nil
}

// read folds the records below offset to, or those in front of the first valid one that stop wants to
// end at; f.event is that record. nil: all.
func (f *past) read(ctx context.Context, to int64, stop func(LogRecord) bool) error {
	err := f.host.cfg.Changelog.Read(ctx, f.p, f.start.Next, to, func(r LogRecord) error {
		before := f.valid.Cursor
		if !f.look(r) {
			return nil
		}
		if stop != nil && stop(r) {
			f.valid.Cursor = before
			return errStop
		}
		f.apply(r)
		return nil
	})
	switch {
	case errors.Is(err, errStop):
		return nil
	case err != nil:
		return fmt.Errorf("history of p%d: %w", f.p, err)
	}
	f.valid.Next = max(f.valid.Next, to) // also past offsets that never will be
	return nil
}
