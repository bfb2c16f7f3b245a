package world

import (
	"math/rand/v2"
	"time"
)

// climate is how a world is: its size, its pace, and how often which fault strikes. Worlds differ in it, so
// that every fault meets every other, and sometimes none.
type climate struct {
	nodes, partitions, devices, messages int
	steps                                int
	laggards                             bool // devices send some messages later than they should
	losses                               bool // and some never

	nap, sleep time.Duration // that pass at once, at most
	// pause bounds pauses, and how long what a crashed process sent is on its way.
	pause time.Duration
	// keep is how long retention keeps what was needed: longer than any pause, and on top of it than owners
	// that crash one after another take to write a checkpoint anew (C4).
	keep   time.Duration
	skew   time.Duration // of clocks
	lag    time.Duration // of what is read of ingest, at most
	window int           // messages of a session that the broker sends before it waits for a PUBACK; 0: any number
	slow   int           // one message in so many takes the slow path though there is another

	weights [actions]int
}

// action is something that may happen next.
type action int

const (
	publishes action = iota
	publishesTwice
	hands    // the broker gives a message to a door
	packets  // a packet arrives
	lnds     // a record on its way lands
	answers  // and is acknowledged
	finishes // a dead letter is durable
	goes     // a routine goes on
	runs     // what was woken runs
	naps     // time passes
	sleeps
	learns
	looks
	writes // people change or delete a twin
	tells  // a device is told what is desired of it

	pauses
	resumes
	crashes
	starts
	leaves
	cutsLog
	cutsLink
	drops
	faults
	expels
	rebalances
	compacts
	truncates
	alertsFail
	orders   // people want other rules
	obeys    // a node hears of them
	ambushes // old checkpoints land, and whoever could repair what they hide dies
	actions
)

// usual is what happens in every world, in thousandths or so.
var usual = [actions]int{
	publishes: 110, publishesTwice: 4, hands: 110, packets: 150, lnds: 120, answers: 120, finishes: 25, goes: 80, runs: 160,
	naps: 70, sleeps: 12, learns: 30, looks: 10, writes: 60, tells: 60, resumes: 10, starts: 10, compacts: 5, truncates: 5,
}

// trouble is what happens in some.
var trouble = [actions]int{
	pauses: 8, crashes: 7, leaves: 3, cutsLog: 5, cutsLink: 5, drops: 6, faults: 6, expels: 8, rebalances: 5, alertsFail: 3, ambushes: 3,
}

func newClimate(r *rand.Rand) climate {
	c := climate{
		nodes: 2 + r.IntN(2), partitions: 1 + r.IntN(2), devices: 1 + r.IntN(3), messages: 4 + r.IntN(12),
		steps: 200 + r.IntN(500), laggards: r.IntN(4) == 0, losses: r.IntN(4) == 0,
		nap: 30 * time.Millisecond, sleep: 800 * time.Millisecond, pause: time.Second, keep: 15 * time.Second, weights: usual,
	}
	if r.IntN(4) == 0 { // most owners of the others live for less than a floor takes
		c.nap, c.sleep, c.pause, c.keep = 150*time.Millisecond, 3*time.Second, 12*time.Second, 90*time.Second
	}
	if r.IntN(4) == 0 {
		c.lag = 2 * time.Second
	}
	if r.IntN(3) == 0 {
		c.window = 1 + r.IntN(4)
	}
	c.slow = 2 << r.IntN(4)
	if r.IntN(3) == 0 {
		c.skew = 200 * time.Millisecond
	}
	for a, weight := range trouble {
		if r.IntN(2) == 0 {
			c.weights[a] += weight * (1 + r.IntN(3)) / 2
		}
	}
	if r.IntN(2) == 0 {
		c.weights[orders], c.weights[obeys] = 1+r.IntN(8), 5+r.IntN(20)
	}
	return c
}

// pick draws an action.
func (c *climate) pick(r *rand.Rand) action {
	sum := 0
	for _, weight := range c.weights {
		sum += weight
	}
	at := r.IntN(sum)
	for a, weight := range c.weights {
		if at -= weight; at < 0 {
			return action(a)
		}
	}
	return naps
}
