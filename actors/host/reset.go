package host

import (
	"context"
	"errors"

	"github.com/doppel-iot/doppel/actors/twin"
)

// errRestart ends an epoch by our own will: the next one restores what this one broke.
var errRestart = errors.New("host: restarting the partition")

// quarantine closes a twin whose code panicked. Its memory is no state any more: the record says that
// it is closed, and when all in flight is released the partition restores itself, which brings the twin
// back as it was before the panic.
func (o *owner) quarantine(c *cell, reason string) {
	c.quarantined, c.broken = true, true
	o.host.stats.Panics.Add(1)
	o.event.Input = twin.Input{Kind: twin.KindQuarantined, ReceivedAt: o.now, Quarantine: twin.Quarantine{Reason: reason}}
	o.event.Effects = twin.Effects{Outcome: twin.Applied}
	// What the twin was doing is not handled before it is a dead letter (G3): the position stays in front.
	src := o.src
	o.src = o.logged
	o.record(c)
	o.src = src
	o.restart = true
}

// Reset lifts a twin's quarantine or, where there is none, lets its device number anew (ResetTwin). It
// returns when that is durable.
func (h *Host) Reset(ctx context.Context, p int32, device string) error {
	var known bool
	err := h.ask(ctx, p, func(o *owner) uint64 {
		c := o.find(device)
		if known = c != nil && !c.broken && !c.twin.Deleted(); !known {
			return 0
		}
		o.event.Input = twin.Input{Kind: twin.KindReset, ReceivedAt: o.now}
		if o.step(c) && o.event.Effects.Outcome.Logged() {
			o.record(c)
			c.quarantined = c.twin.Quarantined()
		}
		return c.lastN
	})
	switch {
	case err != nil:
		return err
	case !known:
		return ErrUnknownDevice
	}
	return nil
}
