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

// The window has eight panes: seven whole ones and the one that fills.
const (
	panes = 8
	whole = panes // index of the merge of the whole ones
)

// Baseline remembers one metric. The zero value is ready. Copy it only to keep a second one.
//
// The newest sample is not part of the window until the next one comes: the window shown is always
// the one that the newest sample was scored against, without a second copy of it.
type Baseline struct {
	ring [panes + 1]spread // the panes, and at [whole] the merge of all but the current one
	n    [panes + 1]uint32 // samples in each

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

// Score is how far a sample lies from the window before it, all of it finite. OK is false, and all
// else 0, while the window is too small, at the first move away from a constant 0, and with values too
// large to be squared.
type Score struct {
	OK    bool
	Z     float64 // (x - mean) / stddev of the window, as Before shows it; over the floor if stddev is 0
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
	n, mean, m2 := b.window()
	if n == 0 {
		return Stats{}
	}
	s := b.ring[whole]
	if b.n[whole] == 0 {
		s = b.ring[b.current]
	} else if b.n[b.current] > 0 {
		s.include(b.ring[b.current].low, b.ring[b.current].high)
	}
	return Stats{Count: uint64(n), Mean: mean, Stddev: deviation(n, m2), Min: s.low, Max: s.high}
}

// window merges the whole panes and the current one.
func (b *Baseline) window() (n uint32, mean, m2 float64) {
	p, w := &b.ring[b.current&(panes-1)], &b.ring[whole]
	np, nw := b.n[b.current&(panes-1)], b.n[whole]
	switch {
	case nw == 0:
		return np, p.mean, p.m2
	case np == 0:
		return nw, w.mean, w.m2
	}
	return pooled(nw, np, w.mean, p.mean, w.m2, p.m2)
}

// score measures x against the window. It has no opinion rather than a wrong one where a float64
// cannot square the distances. A window without spread borrows the floor as its sigma.
func (b *Baseline) score(c *Config, x float64) Score {
	n, mean, m2 := b.window()
	if n < 2 || int64(n) < int64(c.MinSamples) {
		return Score{}
	}
	sigma, distance := deviation(n, m2), x-mean
	floor := b.floor(c)
	floored := math.Sqrt(float64(sigma*sigma) + float64(floor*floor))
	if !finite(distance) || !finite(floored) {
		return Score{}
	}
	s := Score{OK: true}
	if distance != 0 {
		if floored == 0 {
			return Score{} // nothing to measure with
		}
		s.Plain = distance / floored
		s.Z = s.Plain
		if sigma > 0 {
			s.Z = distance / sigma
		}
		if !finite(s.Z) || !finite(s.Plain) {
			return Score{}
		}
	}
	b.peak *= c.holdDecay()
	if rise := math.Abs(s.Plain); rise > b.peak {
		b.peak, s.Score = rise, s.Plain
	}
	return s
}

// floor is what is added to sigma, in squares, so that it fades where the metric is lively. A metric
// that never moved has no range, and its own size is the only scale there is for its first move: 20
// becoming 90 is news, 20 becoming 20.1 is the last digit of its sensor. What was always 0 has none.
func (b *Baseline) floor(c *Config) float64 {
	width := b.high - b.low
	if width == 0 {
		width = math.Abs(b.high)
	}
	return float64(c.FloorShare * width)
}

func finite(x float64) bool { return math.Abs(x) <= math.MaxFloat64 }

// learn takes x into the current pane and the range.
func (b *Baseline) learn(c *Config, x float64) {
	if c.Window <= 0 && int(b.n[b.current]) >= c.paneSamples() {
		b.rotate(1)
	}
	b.n[b.current]++
	b.ring[b.current].add(b.n[b.current], x)
	if !b.ranged {
		b.low, b.high, b.ranged = x, x, true
		return
	}
	if x < b.low {
		b.low = x
	}
	if x > b.high {
		b.high = x
	}
}

// turn opens the pane in which event time t lies, when the window is one of time. Time that stands
// still or runs back stays in the current pane.
func (b *Baseline) turn(c *Config, t int64) {
	if c.Window <= 0 {
		b.start = t
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
		b.ring[b.current], b.n[b.current] = spread{}, 0
	}
	b.merge()
	if w := &b.ring[whole]; b.n[whole] > 0 {
		b.forget(w.low, w.high)
	}
}

// merge works out the merge of all panes but the current one.
func (b *Baseline) merge() {
	var m moments
	for i := 1; i < panes; i++ {
		p := (int(b.current) + i) % panes
		m.merge(&moments{spread: b.ring[p], n: b.n[p]})
	}
	b.ring[whole], b.n[whole] = m.spread, m.n
}

// forget lets the range shrink towards that of the window, so that one outlier does not blind the
// floor for good. A range whose square is too wide for a float64 starts again from the window.
func (b *Baseline) forget(low, high float64) {
	if width := b.high - b.low; !finite(float64(width * width)) {
		b.low, b.high = low, high
		return
	}
	b.low = low - float64((low-b.low)*rangeDecay)
	b.high = high + float64((b.high-high)*rangeDecay)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
