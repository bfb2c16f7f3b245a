// Package baseline keeps what is normal for one metric of one device: count, mean, standard
// deviation, minimum and maximum of a sliding window, and how far the newest sample lies from it.
//
// It does not decide what is an alert, and it does not keep samples: a Baseline takes the same room
// whatever the window's length.
//
// PURE: no I/O, no clock, no goroutines. A Baseline is a plain value owned by its twin; equal inputs
// give equal bits on every processor, which is why products are written float64(x*y) before they are
// added: Go may otherwise fuse the two roundings into one.
package baseline

import "math"

// panes is how many parts the window has: seven whole ones and the one that fills.
const panes = 8

// Baseline remembers one metric. The zero value is ready. Copy it only to keep a second one.
//
// The newest sample is not part of the window until the next one comes: the window shown is always
// the one that the newest sample was scored against, without a second copy of it.
type Baseline struct {
	ring [panes]moments
	past moments // of the whole panes: all of ring but ring[current]

	last  float64 // newest sample, not learned yet
	start int64   // event time at which the current pane begins, unix nanoseconds

	low, high float64 // range seen, slowly forgotten; its share is the floor under sigma
	peak      float64 // highest |Plain| that passed, decaying: the hold

	current uint8
	begun   bool // last and start are set
	ranged  bool // low and high are set
}

// Stats describes a window.
type Stats struct {
	Count                  uint64
	Mean, Stddev, Min, Max float64 // Stddev is the sample's (n-1)
}

// Score is how far a sample lies from the window before it. OK is false, and all else 0, while the
// window is too small or has no spread to measure with.
type Score struct {
	OK    bool
	Z     float64 // (x - mean) / stddev of the window, as Before shows it
	Plain float64 // Z with a floor under sigma, so that a quiet metric's twitch is no sensation
	Score float64 // Plain where it tops the decaying peak, else 0: a rise is reported once
}

// Step scores x, taken at event time t, against the window before it and then remembers it.
func (b *Baseline) Step(c *Config, t int64, x float64) Score {
	if b.begun {
		b.learn(c, b.last)
	} else {
		b.start, b.begun = t, true
	}
	b.turn(c, t)
	b.last = x
	return b.score(c, x)
}

// Before describes the window that the newest sample was scored against.
func (b *Baseline) Before(*Config) Stats {
	w := b.window()
	return w.stats()
}

func (b *Baseline) window() moments {
	w := b.past
	w.merge(&b.ring[b.current])
	return w
}

func (b *Baseline) score(c *Config, x float64) Score {
	w := b.window()
	if w.n < 2 || uint64(w.n) < uint64(max(c.MinSamples, 0)) {
		return Score{}
	}
	sigma, distance := w.stddev(), x-w.mean
	floored := max(sigma, c.FloorShare*(b.high-b.low))
	var s Score
	switch {
	case !(math.Abs(distance) <= math.MaxFloat64 && floored <= math.MaxFloat64):
		return Score{} // beyond what a float64 can square: no opinion rather than a wrong one
	case distance == 0:
		s.OK = true
	case sigma > 0:
		s = Score{OK: true, Z: distance / sigma, Plain: distance / floored}
	case floored > 0:
		s = Score{OK: true, Z: distance / floored, Plain: distance / floored}
	default:
		return Score{} // a constant so far: no scale to say how far this is
	}
	if math.Abs(s.Z) > math.MaxFloat64 || math.Abs(s.Plain) > math.MaxFloat64 {
		return Score{}
	}
	b.peak *= c.holdDecay()
	if rise := math.Abs(s.Plain); rise > b.peak {
		b.peak, s.Score = rise, s.Plain
	}
	return s
}

// learn takes x into the current pane and the range.
func (b *Baseline) learn(c *Config, x float64) {
	if c.Window <= 0 && int(b.ring[b.current].n) >= c.paneSamples() {
		b.rotate(1)
	}
	b.ring[b.current].add(x)
	if !b.ranged {
		b.low, b.high, b.ranged = x, x, true
		return
	}
	b.low, b.high = min(b.low, x), max(b.high, x)
}

// turn opens the pane in which event time t lies, when the window is one of time. Time that stands
// still or runs back stays in the current pane.
func (b *Baseline) turn(c *Config, t int64) {
	if c.Window <= 0 {
		return
	}
	width := max(int64(c.Window)/panes, 1)
	passed := floorDiv(t, width) - floorDiv(b.start, width)
	if passed <= 0 {
		return
	}
	b.rotate(int(min(passed, panes)))
	b.start = t
}

// rotate opens n empty panes in place of the oldest ones and merges the rest anew, which also rids
// the merge of the rounding of whatever has left.
func (b *Baseline) rotate(n int) {
	for range n {
		b.current = (b.current + 1) % panes
		b.ring[b.current] = moments{}
	}
	b.past = moments{}
	for i := 1; i < panes; i++ {
		b.past.merge(&b.ring[(int(b.current)+i)%panes])
	}
	b.forget()
}

// forget lets the range shrink towards the window, so that one outlier does not blind the floor for
// good. A range too wide for a float64 starts again from the window.
func (b *Baseline) forget() {
	if b.past.n == 0 {
		return
	}
	if !(b.high-b.low <= math.MaxFloat64) {
		b.low, b.high = b.past.low, b.past.high
		return
	}
	b.low = min(b.past.low, b.past.low-float64((b.past.low-b.low)*rangeDecay))
	b.high = max(b.past.high, b.past.high+float64((b.high-b.past.high)*rangeDecay))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
