package host

import (
	"context"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Acknowledge notes that somebody looks after an open alert of a device, and returns it as it stands then, when
// that is durable. The same acknowledgement again changes nothing and is no error. ErrAlertResolved: it is over.
func (h *Host) Acknowledge(ctx context.Context, p int32, device string, k alert.Acknowledgement) (*doppelv1.Alert, error) {
	var found *doppelv1.Alert
	missing := ErrUnknownAlert
	err := h.ask(ctx, p, func(o *owner) uint64 {
		c := o.find(device)
		if c == nil {
			return 0
		}
		if c.broken { // it is restored in a moment
			missing = ErrUnavailable
			return 0
		}
		o.event.Input = twin.Input{Kind: twin.KindAcknowledged, ReceivedAt: o.now, Acknowledgement: k}
		if o.step(c) && o.event.Effects.Outcome.Logged() {
			found = newest(device, o.event.Effects.Transitions, k.Alert)
			o.record(c)
		} else {
			found = newest(device, c.twin.AllOpenAlerts(), k.Alert)
		}
		if e, known := o.alerts.byID[k.Alert]; found == nil && known && e.device == device {
			missing = ErrAlertResolved
		}
		return c.lastN
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, missing
	}
	return found, nil
}

// newest is the last of some alerts that has an id; nil: none has.
func newest(device string, alerts []alert.Alert, id uint64) *doppelv1.Alert {
	for i := len(alerts) - 1; i >= 0; i-- {
		if alerts[i].ID == id {
			return codec.Alert(device, &alerts[i])
		}
	}
	return nil
}
