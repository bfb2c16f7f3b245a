package peers

import "time"

// clearance is what the gateways of the cluster have cleared (protocol.md, P2; host.Gateways).
//
// A number of a device is given up on only when no gateway may still hold its message. Two gateways of one
// shared subscription get a device's messages in turn, and one of them may be paused, cut off or dead
// while later messages come by the other. So a partition puts a mark: the number of the next heartbeat.
// Every gateway says in its own heartbeats up to which of ours it is clear: when that one came, it asked
// its broker for everything sent so far, and all of it is released or in doppel.ingest by now. Gateways are
// the nodes recorded in doppel.nodes: a dead one clears nothing until its session is adopted, and
// its record gone.
type clearance struct {
	self   string
	seq    uint64 // of the newest heartbeat of this node
	sent   [sentKept]time.Time
	by     map[string]uint64 // newest heartbeat of ours that a gateway has cleared; with this node
	unrest time.Time         // when clearing last took long
}

const (
	// sentKept is how many heartbeats back it is known when they were sent; beyond it is long.
	sentKept = 64
	// longClear is how long a clearance may take before messages pass for stranded. It must be below the
	// time for which partitions hold samples anyway (500 ms).
	longClear = 400 * time.Millisecond
	// restful is how long every clearance must have been quick before that is over.
	restful = time.Second
)

func newClearance(self string) clearance {
	return clearance{self: self, by: map[string]uint64{self: 0}}
}

func (c *clearance) add(id string) {
	if _, ok := c.by[id]; !ok {
		c.by[id] = 0
	}
}

func (c *clearance) remove(id string) {
	if id != c.self {
		delete(c.by, id)
	}
}

// next counts a heartbeat that is being sent.
func (c *clearance) next(now time.Time) uint64 {
	c.seq++
	c.sent[c.seq%sentKept] = now
	return c.seq
}

// clear enters what a gateway has cleared.
func (c *clearance) clear(id string, seq uint64) {
	if was, ok := c.by[id]; ok && seq > was && seq <= c.seq {
		c.by[id] = seq
	}
}

// forget is for a gateway that has begun anew: it cleared nothing yet.
func (c *clearance) forget(id string) {
	if _, ok := c.by[id]; ok {
		c.by[id] = 0
	}
}

// cleared is the newest heartbeat that every gateway has cleared.
func (c *clearance) cleared() uint64 {
	least := c.seq
	for _, seq := range c.by {
		least = min(least, seq)
	}
	return least
}

// settled says that no clearance takes long, nor has lately.
func (c *clearance) settled(now time.Time) bool {
	oldest := c.cleared() + 1 // of those not cleared
	if oldest <= c.seq && (c.seq-oldest >= sentKept || now.Sub(c.sent[oldest%sentKept]) > longClear) {
		c.unrest = now
	}
	return now.Sub(c.unrest) > restful
}

// Mark implements host.Gateways: all that a gateway holds now is cleared when the mark is.
func (p *Peers) Mark() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clearance.seq + 1
}

// Cleared implements host.Gateways. As long as it is not known which gateways there are, nothing is.
func (p *Peers) Cleared() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		return 0
	}
	return p.clearance.cleared()
}

// Settled implements host.Gateways.
func (p *Peers) Settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known && p.clearance.settled(p.cfg.Clock())
}
