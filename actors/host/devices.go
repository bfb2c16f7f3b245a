package host

import (
	"context"
	"time"
)

const (
	// tellAtOnce bounds the publications of one partition to devices that are under way.
	tellAtOnce = 256
	// tellAgainAfter is longer than a publication is under way of an owner that does not know yet that it is none.
	tellAgainAfter = time.Minute
	// tellWithin is for how long what a device is not told of holds the effects cursor, and with it the floor. A broker
	// may refuse one topic for ever, and the log is not kept for ever.
	tellWithin = int64(time.Hour)
)

// tidings are what devices have to be told and were not yet. Of each device only the newest counts: it says all.
// A device has at most one publication under way, so that an older one cannot come behind a newer one. The oldest
// mark is part of the effects cursor, as alert transitions are: a restore tells again from there (S4, E1).
type tidings struct {
	byDevice map[string]*tiding
	marks    ring[tidingMark] // in the order of the log
	waiting  ring[string]     // devices whose publication is not handed over
	flying   int
	failing  bool // the last answer was an error
	// again are the devices that the owner before us may have been telling something when it ended. What it told
	// may come behind what we tell, so they are told twice. Until then their marks stay.
	again []tellAgain
}

type tellAgain struct {
	device string
	place  uint64 // of its mark
}

// tidingMark is a record that left something to be told.
type tidingMark struct {
	at    Cursor
	since int64
	done  bool
}

// tiding is what one device has to be told.
type tiding struct {
	payload []byte   // nil: forget it all
	marks   []uint64 // places of those not told of
	covered int      // of marks, those that the publication under way is for
	flying  bool
}

// tell has a device told something, for the sake of the record at a cursor.
func (o *owner) tell(ctx context.Context, at Cursor, device string, payload []byte) {
	if o.host.cfg.Devices == nil {
		return
	}
	q := &o.tidings
	d := q.of(device)
	d.payload = payload
	if len(d.marks) == d.covered { // else the one that waits stands for this, too
		o.markTold(device, d, q.mark(at, o.now))
	}
	o.tellOn(ctx)
}

// of is what a device has to be told.
func (q *tidings) of(device string) *tiding {
	d := q.byDevice[device]
	if d == nil {
		if q.byDevice == nil {
			q.byDevice = make(map[string]*tiding)
		}
		d = &tiding{}
		q.byDevice[device] = d
	}
	return d
}

// mark enters a record that leaves something to be told.
func (q *tidings) mark(at Cursor, now int64) (place uint64) {
	place = q.marks.tail
	*q.marks.push() = tidingMark{at: at, since: now}
	return place
}

// settle takes away the marks that are done with.
func (q *tidings) settle(places []uint64) {
	for _, place := range places {
		if place >= q.marks.head { // else it was given up
			q.marks.at(place).done = true
		}
	}
	for q.marks.len() > 0 && q.marks.front().done {
		q.marks.pop()
	}
}

// giveUpTellings lets the effects cursor go past what devices could not be told for too long. They are told as
// before, but only by this owner.
func (o *owner) giveUpTellings() {
	q, n := &o.tidings, 0
	for q.marks.len() > 0 && o.now-q.marks.front().since > tellWithin {
		if !q.marks.front().done {
			n++
		}
		q.marks.pop()
	}
	if n > 0 {
		o.log.Error("desired properties could not be published for an hour; another owner will not know", "changes", n)
	}
}

// markTold has the next publication to a device settle a mark.
func (o *owner) markTold(device string, d *tiding, place uint64) {
	waits := len(d.marks) > d.covered
	if d.marks = append(d.marks, place); !waits && !d.flying {
		*o.tidings.waiting.push() = device
	}
}

// tellLate tells a device what records before our claim left to be told, the first time and, when nothing can be under
// way any more of the owner that wrote them, a second time.
func (o *owner) tellLate(ctx context.Context, at Cursor, device string) {
	q := &o.tidings
	if o.host.cfg.Devices == nil {
		return
	}
	if !o.host.cfg.DesiredAnew { // there nobody else can tell them anything
		if len(q.again) == 0 {
			o.host.after(tellAgainAfter, func() { o.p.box.call(func(current *owner) { o.tellTwice(ctx, current) }) })
		}
		q.again = append(q.again, tellAgain{device, q.mark(at, o.now)})
	}
	o.tell(ctx, at, device, o.desired(device))
}

// tellTwice tells some of those that are to be told again.
func (o *owner) tellTwice(ctx context.Context, current *owner) {
	q := &o.tidings
	if current != o || o.leaving || ctx.Err() != nil { // the marks stand, and the next owner does it
		return
	}
	some := q.again[:min(len(q.again), tellAtOnce)]
	if q.again = q.again[len(some):]; len(q.again) > 0 {
		o.host.after(republishAfter, func() { o.p.box.call(func(current *owner) { o.tellTwice(ctx, current) }) })
	}
	payloads := make([][]byte, len(some))
	for i := range some {
		payloads[i] = o.desired(some[i].device)
	}
	n := o.n // what they say is released then
	tell := func() {
		if o.released < n {
			return
		}
		for i := range some {
			d := q.of(some[i].device)
			d.payload = payloads[i]
			o.markTold(some[i].device, d, some[i].place)
		}
		o.tellOn(ctx)
	}
	if n <= o.released {
		tell()
		return
	}
	*o.pend.push() = pending{n: n, fn: tell}
}

// tellOn hands over what waits. An owner that leaves does not: what it tells could come behind what the next one does.
func (o *owner) tellOn(ctx context.Context) {
	q := &o.tidings
	for !o.leaving && q.flying < tellAtOnce && q.waiting.len() > 0 {
		device := *q.waiting.front()
		q.waiting.pop()
		d := q.byDevice[device]
		d.flying, d.covered = true, len(d.marks)
		q.flying++
		o.host.cfg.Devices.Desired(device, d.payload, func(err error) {
			o.p.box.call(func(current *owner) {
				if current == o { // else the next owner tells it again
					o.toldDevice(ctx, device, d, err)
				}
			})
		})
	}
}

// toldDevice takes the answer of a publication.
func (o *owner) toldDevice(ctx context.Context, device string, d *tiding, err error) {
	q := &o.tidings
	q.flying--
	d.flying = false
	if err != nil {
		d.covered = 0
		if !q.failing && ctx.Err() == nil {
			o.log.WarnContext(ctx, "desired properties not published, trying again", "device_id", device, "err", err)
		}
		q.failing = true
		o.host.after(republishAfter, func() {
			o.p.box.call(func(current *owner) {
				if current == o && ctx.Err() == nil {
					*q.waiting.push() = device
					o.tellOn(ctx)
				}
			})
		})
		d.flying = true // until then it is not handed over
		o.tellOn(ctx)
		return
	}
	q.failing = false
	q.settle(d.marks[:d.covered])
	d.marks, d.covered = d.marks[d.covered:], 0
	if len(d.marks) == 0 {
		delete(q.byDevice, device)
	} else {
		*q.waiting.push() = device
	}
	o.tellOn(ctx)
}
