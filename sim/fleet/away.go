package fleet

const (
	// A device that goes offline stays so for 1 to 10 s.
	minAway = 1e9
	maxAway = 10e9
	// maxStored is how many messages an offline device keeps; with one more it comes back.
	maxStored = 256
)

// store keeps a message of a device that is offline, or that goes offline now. When the device comes back
// all it has kept is sent, in order. false: the device is there, m is to be sent. last: there is no other
// message behind m.
func (c *conn) store(d *sender, m *message, now int64, last bool) bool {
	sc := &c.script
	away := now < d.awayUntil
	if !away && len(d.stored) == 0 {
		if sc.faults.Offline == 0 || last || !sc.random.Chance(sc.faults.Offline) {
			return false
		}
		d.awayUntil = now + int64(minAway+sc.random.Float()*(maxAway-minAway))
		away = true
		c.mu.Lock()
		c.totals.absences++
		c.mu.Unlock()
	}
	if d.held != nil { // it waited to be overtaken, by a message that waits now itself
		d.stored = append(d.stored, d.held)
		d.held = nil
	}
	d.stored = append(d.stored, clone(m))
	if !away || last || len(d.stored) > maxStored {
		c.comeBack(d, now)
	}
	return true
}

// comeBack sends what a device has stored, in order, in front of all that comes behind it.
func (c *conn) comeBack(d *sender, now int64) {
	for i, m := range d.stored {
		c.later.push(now-int64(len(d.stored)-i), m)
	}
	d.stored, d.awayUntil = nil, 0
	if l := c.obedient[d.source.ID()]; l != nil && l.missed != nil {
		c.want(l, l.missed, now)
		l.missed = nil
	}
}
