package host

import (
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Update is a change of what people want of a device and say of it.
type Update struct {
	Device string
	Etag   string // as the twin was when it was read; empty: whatever it is now
	// Desired is a merge patch of the desired properties, a JSON object; empty: none.
	Desired     []byte
	Tags        map[string]string // set; nobody changes the map afterwards
	ReplaceTags bool              // Tags instead of those there are
	RemovedTags []string
	// AllowMissing makes the twin if there is none.
	AllowMissing bool
}

// InvalidError is a write that a twin cannot take.
type InvalidError struct {
	Field string // of Update: desired or tags
	Text  string // what is wrong, for people
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Text }

// Update changes what people want of a device and say of it, and returns the twin as it is then, when that is
// durable. A change that changes nothing is answered, too, and not logged. It fails with ErrUnknownDevice,
// ErrConflict or an Invalid; when ctx ends first nobody knows whether it will be.
func (h *Host) Update(ctx context.Context, p int32, u Update) (*doppelv1.Twin, error) {
	var t *doppelv1.Twin
	var failed error
	err := h.ask(ctx, p, func(o *owner) (n uint64) {
		t, n, failed = o.update(&u)
		return n
	})
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	}
	return t, nil
}

// Delete deletes a twin: open alerts resolve, its device is told of nothing any more, and nobody sees it. Its numbering
// is remembered for a day, so that what was sent before does not bring it back. It returns when that is durable.
func (h *Host) Delete(ctx context.Context, p int32, device, etag string) error {
	var failed error
	err := h.ask(ctx, p, func(o *owner) (n uint64) {
		n, failed = o.delete(device, etag)
		return n
	})
	if err != nil {
		return err
	}
	return failed
}

// written finds the twin that is to be changed; a deleted one counts as missing, and is returned, too.
func (o *owner) written(device, etag string) (c *cell, exists bool, err error) {
	if o.leaving || o.restart { // the next owner takes it
		return nil, false, ErrUnavailable
	}
	c = o.find(device)
	exists = c != nil && !c.twin.Deleted()
	switch {
	case c != nil && c.broken:
		return nil, false, ErrUnavailable
	case etag == "":
	case !exists, etag != codec.Etag(&c.twin):
		err = ErrConflict
	}
	return c, exists, err
}

// update takes an update and returns the newest record that its answer shows.
func (o *owner) update(u *Update) (*doppelv1.Twin, uint64, error) {
	c, exists, err := o.written(u.Device, u.Etag)
	switch {
	case err == nil && !exists && !u.AllowMissing, err == ErrConflict && !exists && !u.AllowMissing: //nolint:errorlint // our own
		return nil, 0, ErrUnknownDevice
	case err != nil:
		return nil, 0, err
	}
	fresh := c == nil
	if fresh {
		c = o.newCell(u.Device)
	}
	o.event.Input = twin.Input{Kind: twin.KindDesired, ReceivedAt: o.now, Desired: twin.Desired{
		Patch: u.Desired, Tags: u.Tags, ReplaceTags: u.ReplaceTags, RemovedTags: u.RemovedTags,
	}}
	if !o.step(c) {
		if fresh {
			o.adopt(c) // keep it: a quarantined twin is visible
		}
		return nil, 0, ErrUnavailable
	}
	fx := &o.event.Effects
	if fx.Outcome == twin.Refuse {
		return nil, 0, &InvalidError{Field: fx.Field, Text: fx.Detail}
	}
	if fx.Outcome.Logged() {
		if fresh {
			o.adopt(c)
		}
		o.record(c)
		c.quarantined = c.twin.Quarantined()
	}
	return o.proto(&c.twin, c.quarantined), c.lastN, nil
}

// delete is update for a delete.
func (o *owner) delete(device, etag string) (uint64, error) {
	c, exists, err := o.written(device, etag)
	switch {
	case !exists && (err == nil || err == ErrConflict): //nolint:errorlint // our own
		return 0, ErrUnknownDevice
	case err != nil:
		return 0, err
	}
	o.event.Input = twin.Input{Kind: twin.KindDeleted, ReceivedAt: o.now}
	if !o.step(c) {
		return 0, ErrUnavailable
	}
	o.record(c)
	c.quarantined = c.twin.Quarantined()
	return c.lastN, nil
}
