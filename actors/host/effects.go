package host

import (
	"context"
	"time"
)

// republishAfter is the pause before an alert transition that could not be published is tried again.
const republishAfter = time.Second

// emission is the transitions of one released record until doppel.alerts has them all. The oldest one
// is the effects cursor: a restore emits everything from there again (S4, E1).
type emission struct {
	at   Cursor // of the record
	left int
}

// effectsNext is the cursor below which every effect is acknowledged.
func (o *owner) effectsNext() Cursor {
	if o.emits.len() > 0 {
		return o.emits.front().at
	}
	return o.releasedTo()
}

// publish sends the transitions of the record at a cursor to doppel.alerts.
func (o *owner) publish(ctx context.Context, at Cursor, ts []Transition) {
	place := o.emits.tail
	*o.emits.push() = emission{at: at, left: len(ts)}
	for i := range ts {
		o.publishOne(ctx, place, ts[i])
	}
}

func (o *owner) publishOne(ctx context.Context, place uint64, t Transition) {
	o.host.cfg.Alerts.Publish(ctx, t, func(err error) {
		o.p.box.call(func(current *owner) {
			switch {
			case current != o: // the next owner emits it again
			case err == nil:
				o.published(place)
			case ctx.Err() == nil:
				o.log.Warn("alert transition not published, trying again", "device_id", t.Device, "offset", t.Offset, "err", err)
				o.host.after(republishAfter, func() {
					o.p.box.call(func(current *owner) {
						if current == o {
							o.publishOne(ctx, place, t)
						}
					})
				})
			}
		})
	})
}

func (o *owner) published(place uint64) {
	o.emits.at(place).left--
	for o.emits.len() > 0 && o.emits.front().left == 0 {
		o.emits.pop()
	}
}
