package host

import (
	"context"
	"sync/atomic"
	"time"
)

// republishAfter is the pause before alert transitions that could not be published are tried again.
const republishAfter = time.Second

// emission is the transitions of one released record until doppel.alerts has them all. The oldest one
// is the effects cursor: a restore emits everything from there again (S4, E1).
type emission struct {
	at   Cursor // of the record
	left int
}

// publications are the transitions that doppel.alerts does not have yet, in the order of the log. They are
// published in it: who reads them counts what is behind all it has seen (E1), and would miss one that comes
// behind its successors. So when one cannot be published nothing more is handed over until all before it
// are answered, and then all that are missing once more.
type publications struct {
	waiting ring[publication]
	next    uint64      // place of the first that was not handed over
	flying  int         // handed over and not answered
	halted  atomic.Bool // one came back; set where the answer comes in, so that not one more follows
}

type publication struct {
	t        Transition
	since    int64  // when its cause was received, unix nanoseconds; 0: before a restore
	emission uint64 // its place
	there    bool
}

// effectsNext is the cursor below which every effect is acknowledged.
func (o *owner) effectsNext() Cursor {
	next := o.releasedTo()
	if o.emits.len() > 0 {
		next = lower(next, o.emits.front().at)
	}
	if m := &o.tidings.marks; m.len() > 0 {
		next = lower(next, m.front().at)
	}
	return next
}

// publish sends the transitions of the record at a cursor to doppel.alerts, but for those of rules in shadow:
// nobody hears of them. Their cause was received at since; 0: before a restore.
func (o *owner) publish(ctx context.Context, at Cursor, since int64, ts []Transition) {
	place, left := o.emits.tail, 0
	for i := range ts {
		if !ts[i].Alert.Shadow {
			*o.publications.waiting.push() = publication{t: ts[i], since: since, emission: place}
			left++
		}
	}
	if left == 0 {
		return
	}
	*o.emits.push() = emission{at: at, left: left}
	o.publishOn(ctx)
}

// publishOn hands over what was not yet.
func (o *owner) publishOn(ctx context.Context) {
	q := &o.publications
	for ; !q.halted.Load() && q.next != q.waiting.tail; q.next++ {
		if q.waiting.at(q.next).there { // before one that came back
			continue
		}
		place := q.next
		q.flying++
		o.host.cfg.Alerts.Publish(ctx, q.waiting.at(place).t, func(err error) {
			if err != nil {
				q.halted.Store(true)
			}
			o.p.box.call(func(current *owner) {
				if current == o { // else the next owner emits it again
					o.publicationDone(ctx, place, err)
				}
			})
		})
	}
}

func (o *owner) publicationDone(ctx context.Context, place uint64, err error) {
	q := &o.publications
	q.flying--
	if err == nil {
		p := q.waiting.at(place)
		p.there = true
		if p.since != 0 {
			o.host.cfg.Observe(StageAlert, time.Duration(o.host.cfg.Clock()-p.since))
		}
		o.published(p.emission)
		for q.waiting.len() > 0 && q.waiting.front().there {
			q.waiting.pop()
		}
	} else if ctx.Err() == nil {
		t := &q.waiting.at(place).t
		o.log.Warn("alert transition not published, trying again", "device_id", t.Device, "offset", t.Offset, "err", err)
	}
	if q.halted.Load() && q.flying == 0 && ctx.Err() == nil {
		o.host.after(republishAfter, func() {
			o.p.box.call(func(current *owner) {
				if current == o {
					q.next = q.waiting.head
					q.halted.Store(false)
					o.publishOn(ctx)
				}
			})
		})
	}
}

func (o *owner) published(place uint64) {
	o.emits.at(place).left--
	for o.emits.len() > 0 && o.emits.front().left == 0 {
		o.emits.pop()
	}
}
