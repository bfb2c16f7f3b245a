package fleet

import (
	"slices"

	"github.com/doppel-iot/doppel/sim/device"
)

// script decides what a connection says next, faults included; it draws from one seeded generator.
type script struct {
	faults  Faults
	random  *device.Random
	encoder encoder
	batch   int
	props   []byte
	payload []byte
	single  [1]device.Sample
	message message
	poisons uint64
}

const (
	maxDupDelay = 50e6  // nanoseconds
	maxSwap     = 200e6 // nanoseconds
	// brisk is the PUBACK latency above which a swapped message follows at once: on a loaded machine
	// 200 ms between two messages can become more than the 500 ms that a twin waits.
	brisk = int64(25e6)
	// burst is how late a device is when its samples come in a row: then a swapped message follows at
	// once, since 64 others might else overtake it.
	burst = int64(100e6)
)

// next is the message to send now, or nil. It is valid until the next call.
func (c *conn) next(now int64) *message {
	for {
		if !c.later.empty() && c.later.top().at <= now {
			return c.later.pop()
		}
		if c.unpaced && now >= c.until {
			c.unpaced = false
			c.abandonSchedule()
			continue
		}
		if c.devices.empty() || c.devices.top().at > now {
			return nil
		}
		if m := c.take(c.devices.top().value, now); m != nil {
			return m
		}
	}
}

// take lets the first device of the queue give a sample. nil: it went into a batch or is held back.
func (c *conn) take(d *sender, now int64) *message {
	at := c.devices.top().at
	s := d.source.Take(now)
	next := d.source.Due()
	if next == device.Unpaced {
		next = c.takeTurn()
	}
	if next >= c.until {
		c.devices.pop()
	} else {
		c.devices.moveTop(next)
	}

	sc := &c.script
	var batch []device.Sample
	if sc.batch > 1 {
		d.add(s)
		if len(d.pending) < sc.batch && next < c.until {
			return nil
		}
		batch = d.pending
	} else {
		sc.single[0] = s
		batch = sc.single[:]
	}
	m := c.encode(d, batch)
	d.pending = d.pending[:0]
	if c.store(d, m, now, next >= c.until) {
		return nil
	}

	if sc.random.Chance(sc.faults.Poison) {
		c.later.push(now, c.poison(d, now))
	}
	if d.held == nil && next < c.until && sc.random.Chance(sc.faults.Reorder) {
		d.held = clone(m)
		return nil
	}
	if d.held != nil {
		delay := int64(0)
		if !c.unpaced && now-at < burst && c.lag.Load() < brisk {
			delay = int64(sc.random.Float() * min(maxSwap, 16*float64(max(next-at, 0))))
		}
		d.swapped += uint64(d.held.samples)
		c.totals.swapped.Add(uint64(d.held.samples))
		c.later.push(now+delay, d.held)
		d.held = nil
	}
	if sc.random.Chance(sc.faults.Dup) {
		twin := clone(m)
		twin.kind = duplicateMessage
		c.later.push(now+int64(sc.random.Float()*maxDupDelay), twin)
	}
	return m
}

// takeTurn gives the next place in the round of devices that are always due.
func (c *conn) takeTurn() int64 {
	c.turn++
	return c.turn
}

func (c *conn) encode(d *sender, batch []device.Sample) *message {
	sc := &c.script
	sc.payload = sc.encoder.append(sc.payload[:0], batch)
	sc.message = message{
		kind: sampleMessage, device: d,
		first: batch[0].Seq, samples: len(batch),
		topic: d.topic, props: sc.props, payload: sc.payload,
	}
	return &sc.message
}

func (c *conn) poison(d *sender, now int64) *message {
	sc := &c.script
	sc.poisons++
	p := brew(sc.random, d.source.ID(), now)
	m := &message{
		kind: poisonMessage, device: d, samples: 1,
		topic: d.topic, props: contentType(p.contentType), payload: p.payload,
	}
	if c.cfg.Observer != nil {
		c.cfg.Observer.Poisoned(p.payload)
	}
	return m
}

// abandonSchedule ends the taking of samples; what was taken is still sent.
func (c *conn) abandonSchedule() {
	for !c.devices.empty() {
		d := c.devices.pop()
		if len(d.stored) > 0 {
			c.comeBack(d, 0)
		}
		if len(d.pending) > 0 {
			c.later.push(1, clone(c.encode(d, d.pending)))
			d.pending = d.pending[:0]
		}
		if d.held != nil {
			c.later.push(0, d.held)
			d.held = nil
		}
	}
}

// clone copies a message with its payload.
func clone(m *message) *message {
	n := *m
	n.payload = slices.Clone(m.payload)
	return &n
}
