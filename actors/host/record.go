package host

import (
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

// slabBytes is how much record memory is allocated at a time, less for an owner that has written little
// so far. A slab lives until its records are acknowledged; the collector frees it whole.
const slabBytes = 256 << 10

// grown is an empty slab, larger than the last one, up to most.
func grown(last []byte, most int) []byte {
	const least = 8 << 10
	return make([]byte, 0, min(max(2*cap(last), least), most))
}

// maxFlight bounds the bytes of a partition's unacknowledged records, and what one message makes on top.
const maxFlight = 16 << 20

// maxEmits bounds the records whose alert transitions doppel.alerts does not have yet: a fleet whose
// alerts cannot be kept is slowed down, not answered.
const maxEmits = 8192

// maxLetters bounds the dead letters under way, and what one message makes on top: a node has room for some
// thousand, and who finds none waits.
const maxLetters = 256

// outbox is what one turn appends.
type outbox struct {
	recs    []Record
	slab    []byte
	rows    *Rows // of this turn; nil: no time series store
	bytes   int   // of recs
	letters int   // dead letters under way
}

// chunk is one append: its rows leave when its last record is released.
type chunk struct {
	last uint64 // count of its last record
	at   int64  // when it was handed to the log, unix nanoseconds
	rows *Rows

	bytes int
}

// record logs what o.event holds (O2, O8): the input of c and its effects, just stepped. It returns
// what waits for the release of that record.
func (o *owner) record(c *cell) *pending {
	ev, fx := &o.event, &o.event.Effects
	o.n++
	c.lastN = o.n
	ev.Kind = codec.KindOf(ev.Input.Kind)
	ev.Epoch, ev.N, ev.Now = o.epoch, o.n, o.now
	ev.SrcNext = codec.Position{}
	if o.src != o.logged {
		ev.SrcNext, o.logged = o.src, o.src
	}
	ev.Digest, ev.SetDigest, ev.Version = c.twin.Digest(), c.twin.SetDigest(), c.twin.Version()
	if c.broken { // replay will give something, this memory cannot know what
		ev.Digest, ev.SetDigest, ev.Version = 0, 0, 0
	}
	ev.Duplicates = c.twin.TakeDuplicates()
	key, value := o.encode(c, ev)
	o.out.recs = append(o.out.recs, Record{N: o.n, Key: key, Value: value})

	e := o.pend.push()
	*e = pending{n: o.n, cell: c, version: ev.Version, counts: countsOf(ev)}
	if len(fx.Transitions) > 0 {
		e.since = o.now // of what time itself brought about
		if at := ev.Input.ReceivedAt; at != 0 {
			e.since = at
		}
	}
	for i := range fx.Transitions {
		e.effects = append(e.effects, Transition{Partition: o.p.id, Index: i, Device: c.id(), Alert: fx.Transitions[i]})
	}
	if o.host.cfg.Rows != nil {
		o.addRows(c, fx)
	}
	if on := c.twin.Online(); on != c.online {
		c.online = on
		o.twinsOn += sign(on)
		o.roster.online.set(c.place, on)
	}
	o.roster.retag(c)
	if len(fx.Transitions) > 0 {
		o.roster.alerting.set(c.place, c.twin.OpenCount() > 0)
	}
	if gone := c.twin.Deleted(); gone != c.deleted {
		c.deleted = gone
		o.tombs += sign(gone)
		o.roster.used.set(c.place, !gone)
	}
	if fx.Tell {
		e.tell, e.message = true, codec.DesiredMessage(&c.twin)
		o.out.bytes += len(e.message) // it is kept for as long
	}
	o.wheel.schedule(c, o.dueOf(&c.twin))
	return e
}

// encode appends the key and the value of a record to the slab and returns them.
func (o *owner) encode(c *cell, ev *codec.Event) (key, value []byte) {
	if cap(o.out.slab)-len(o.out.slab) < 4<<10 {
		o.out.slab = grown(o.out.slab, slabBytes)
	}
	start := len(o.out.slab)
	o.out.slab = append(o.out.slab, c.id()...)
	mid := len(o.out.slab)
	o.out.slab = codec.AppendEvent(o.out.slab, ev)
	end := len(o.out.slab)
	o.out.bytes += end - start
	return o.out.slab[start:mid:mid], o.out.slab[mid:end:end]
}

// countsOf is what a record settles. The samples of a refused record are counted where their dead
// letter was made.
func countsOf(ev *codec.Event) Counts {
	var n Counts
	for i := range ev.Effects.Applied {
		switch a := &ev.Effects.Applied[i]; {
		case a.Late:
			n.Late++
		case a.Own:
			n.Applied++
		default: // was held
			n.Applied++
			n.Held--
		}
	}
	if ev.Effects.Outcome == twin.Held && ev.Input.Kind == twin.KindSample { // patches wait, too
		n.Held++
	}
	return n
}

func (o *owner) addRows(c *cell, fx *twin.Effects) {
	if o.out.rows == nil {
		o.out.rows = takeRows()
	}
	r := o.out.rows
	for i := range fx.Applied {
		a := &fx.Applied[i]
		row := Row{Device: c.id(), Boot: a.Boot, Seq: a.Seq, Time: a.Time, Late: a.Late}
		if !a.Numbered {
			row.Boot, row.Seq = 0, a.Count
		}
		from := len(r.Readings)
		r.Readings = append(r.Readings, a.Readings...)
		row.Readings = r.Readings[from:len(r.Readings):len(r.Readings)]
		r.Samples = append(r.Samples, row)
	}
}

// full says that no more may be in flight: the log has to answer first.
func (o *owner) full() bool {
	return o.pend.len() >= o.host.cfg.InFlight || o.emits.len() >= maxEmits || o.flight+o.out.bytes >= maxFlight || o.out.letters >= maxLetters
}

// append hands the records of this turn to the log. It blocks while the log's buffer is full: the
// mailbox then fills and the doors wait.
func (o *owner) append(ctx context.Context) {
	if len(o.out.recs) == 0 {
		return
	}
	k := o.chunks.push()
	*k = chunk{last: o.n, at: o.host.cfg.Clock(), rows: o.out.rows, bytes: o.out.bytes}
	o.flight += o.out.bytes
	o.out.rows, o.out.bytes = nil, 0
	o.host.cfg.Changelog.Append(ctx, o.p.id, o.out.recs, o)
	clear(o.out.recs)
	o.out.recs = o.out.recs[:0]
}

func sign(up bool) int64 {
	if up {
		return 1
	}
	return -1
}
