package host

import "context"

// tellAtOnce bounds the publications of one partition to devices that are under way.
const tellAtOnce = 256

// tidings are what devices have to be told and were not yet. Of each device only the newest counts: it says all.
// A device has at most one publication under way, so that an older one cannot come behind a newer one. The oldest
// mark is part of the effects cursor, as alert transitions are: a restore tells again from there (S4, E1).
type tidings struct {
	byDevice map[string]*tiding
	marks    ring[tidingMark] // in the order of the log
	waiting  ring[string]     // devices whose publication is not handed over
	flying   int
	failing  bool // the last answer was an error
}

// tidingMark is a record that left something to be told.
type tidingMark struct {
	at   Cursor
	done bool
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
	q := &o.tidings
	if o.host.cfg.Devices == nil {
		return
	}
	if q.byDevice == nil {
		q.byDevice = make(map[string]*tiding)
	}
	d := q.byDevice[device]
	if d == nil {
		d = &tiding{}
		q.byDevice[device] = d
	}
	d.payload = payload
	if len(d.marks) == d.covered { // else the one that waits stands for this, too
		d.marks = append(d.marks, q.marks.tail)
		*q.marks.push() = tidingMark{at: at}
		if !d.flying {
			*q.waiting.push() = device
		}
	}
	o.tellOn(ctx)
}

// tellOn hands over what waits.
func (o *owner) tellOn(ctx context.Context) {
	q := &o.tidings
	for q.flying < tellAtOnce && q.waiting.len() > 0 {
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
	for _, place := range d.marks[:d.covered] {
		q.marks.at(place).done = true
	}
	d.marks, d.covered = d.marks[d.covered:], 0
	for q.marks.len() > 0 && q.marks.front().done {
		q.marks.pop()
	}
	if len(d.marks) == 0 {
		delete(q.byDevice, device)
	} else {
		*q.waiting.push() = device
	}
	o.tellOn(ctx)
}
