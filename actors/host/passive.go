package host

import (
	"maps"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// A twin that has been silent for Config.PassivateAfter is kept as its encoding, and its actor leaves
// the engine, until an input comes or something is due. Nobody can tell: the log says nothing of it,
// counts and lists include it, and queries read it without waking it.

const (
	// defaultPassivateAfter is how long a twin must be silent.
	defaultPassivateAfter = 10 * time.Minute
	// dueSoon keeps a twin hot that would be woken again at once.
	dueSoon = int64(time.Minute)
	// idleTick is how exactly something due of a passive twin is met.
	idleTick = int64(250 * time.Millisecond)

	// Bounds of one sweep, at most one a tick: 64 passivations take about 0.2 ms. The hand goes round
	// all hot twins in about a minute.
	sweepTicks = 1200
	sweepLeast = 64
	sweepMost  = 64
)

// passive is a twin in its compact form.
type passive struct {
	memory  string // its id and behind that its encoding: one allocation, whose front is the key in the map
	lookAt  int64  // when the wheel wakes it; 0: not scheduled
	asof    int64  // restore only: last offset of the changelog it includes
	place   uint32 // in the roster; 0: none
	idLen   uint8
	deleted bool // nobody sees it
}

func (p *passive) id() string      { return p.memory[:p.idLen] }
func (p *passive) encoded() string { return p.memory[p.idLen:] }

// lookTime implements scheduled.
func (p *passive) lookTime() *int64 { return &p.lookAt }

// idleness is what a partition knows of its idle twins.
type idleness struct {
	passive map[string]*passive
	wheel   *wheel[*passive]
	tombs   int64   // of them, those of deleted twins
	rota    []*cell // the hot twins, in the order in which the sweep looks at them
	hand    int     // where in rota it goes on
	next    int64   // time of the next sweep
	peak    int     // most hot twins since their map was made: maps do not shrink

	encoded []byte    // scratch
	read    twin.Twin // scratch of queries
	names   func([]byte) string
}

// find is the twin of a device that gets an input: a passive one becomes hot. nil: there is none.
func (o *owner) find(device string) *cell {
	if c := o.twins[device]; c != nil {
		return c
	}
	if p := o.idle.passive[device]; p != nil {
		return o.activate(p)
	}
	return nil
}

// sweep passivates some of the twins that have been silent for long enough.
func (o *owner) sweep() {
	i := &o.idle
	if o.host.cfg.PassivateAfter < 0 || o.now < i.next {
		return
	}
	i.next = o.now + wheelTick
	left := sweepMost
	for range min(len(i.rota), len(i.rota)/sweepTicks+sweepLeast) {
		if i.hand >= len(i.rota) {
			i.hand = 0
		}
		c := i.rota[i.hand]
		if !o.mayRest(c) {
			i.hand++
			continue
		}
		if c.dirty { // its checkpoint comes first; the next round finds it clean
			if o.ckpt.flying.len() < maxFlying {
				o.takeTwin(c, o.floorStart())
			}
			i.hand++
			continue
		}
		o.passivate(c)
		last := len(i.rota) - 1
		i.rota[i.hand], i.rota[last] = i.rota[last], nil
		i.rota = i.rota[:last]
		if left--; left == 0 {
			break
		}
	}
	o.shrink()
}

// mayRest says whether c is idle: silent, nothing soon due, and nothing of it under way.
func (o *owner) mayRest(c *cell) bool {
	if c.quarantined || c.atBarrier || c.lastN > o.released || o.now-c.twin.LastSeen() < int64(o.host.cfg.PassivateAfter) {
		return false
	}
	due := o.dueOf(&c.twin)
	return due == 0 || due > o.now+dueSoon
}

// passivate makes c passive; the caller takes it off the rota.
func (o *owner) passivate(c *cell) {
	i := &o.idle
	i.encoded = c.twin.Encode(append(i.encoded[:0], c.id()...))
	p := &passive{memory: string(i.encoded), idLen: uint8(len(c.id()))}
	i.passive[p.id()] = p
	if p.deleted = c.deleted; p.deleted {
		i.tombs++
	}
	i.wheel.schedule(p, o.dueOf(&c.twin))
	o.roster.rests(c, p)
	delete(o.twins, c.id())
	c.lookAt = 0 // what the wheel still holds of it is void
	o.host.engine.Registry.Remove(&c.pid)
}

// activate makes a passive twin hot again.
func (o *owner) activate(p *passive) *cell {
	c := o.newCell(p.id())
	c.broken = !o.decode(&c.twin, c.id(), p)
	c.quarantined = c.broken || c.twin.Quarantined()
	delete(o.idle.passive, p.id())
	if p.deleted {
		o.idle.tombs--
	}
	c.place = p.place
	*p = passive{} // the wheel may hold it for a while
	c.online, c.deleted = c.twin.Online(), c.twin.Deleted()
	o.adopt(c)
	if o.wheel != nil { // not while restoring
		o.wheel.schedule(c, o.dueOf(&c.twin))
	}
	return c
}

// decode fills t with a passive twin. It fails only by a defect of the encoding: the twin then counts
// as panicked, and as the log has all of it, a restart brings it back.
func (o *owner) decode(t *twin.Twin, id string, p *passive) bool {
	i := &o.idle
	i.encoded = append(i.encoded[:0], p.encoded()...)
	if err := t.Decode(id, i.encoded, i.names); err != nil {
		o.host.stats.Panics.Add(1)
		o.log.Error("passive twin cannot be read and is quarantined", "device_id", id, "err", err)
		*t = *twin.New(id, o.now)
		return false
	}
	return true
}

// wake is called by the wheel when a passive twin has something due.
func (o *owner) wake(p *passive) { o.look(o.activate(p)) }

// shrink makes the map of hot twins anew when most of them have left it.
func (o *owner) shrink() {
	const worthIt = 4096
	if o.idle.peak < worthIt || len(o.twins) > o.idle.peak/4 {
		return
	}
	twins := make(map[string]*cell, len(o.twins))
	maps.Copy(twins, o.twins)
	o.twins, o.idle.peak = twins, len(twins)
	o.idle.rota = append(make([]*cell, 0, len(twins)), o.idle.rota...)
}
