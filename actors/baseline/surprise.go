package baseline

import "math"

// Surprise is a second detector, for recorded series and for those who want more than a z-score: how
// rare is what one sees, in decades, given the hour of the day, the slow drift, the liveliness and
// the range of all that came before. It needs more room than a Baseline, and its settings suit data
// that comes every few minutes. The zero value is ready.
type Surprise struct {
	profile profile
	seen    uint32
	last    float64
	lastAt  int64

	drift      float64 // smoothed residual
	fast, slow float64 // of squared steps from sample to sample
	low, high  float64
	peak       float64

	residuals, drifts, calms tail
}

// Parts is what a surprise is made of. Total is their sum before the hold, Score after it.
type Parts struct {
	OK                              bool // false for the first samples
	Residual, Drift, Calm, Breakout float64
	Total, Score                    float64
}

const (
	surpriseAfter = 100   // samples
	driftWeight   = 0.05  // of a new residual
	fastWeight    = 0.1   // of a new squared step
	slowWeight    = 0.001 // the same, for the memory it is held against
	calmLeast     = 1e-4  // share of slow below which fast is taken for a flat line
	breakoutShare = 0.0036
	roundOff      = 1e-12 // share of a value that is no residual but the last digits of a mean
)

// Step scores x, taken at event time t in nanoseconds, against all that came before it and then
// learns it.
func (s *Surprise) Step(t int64, x float64) Parts {
	if s.seen == 0 {
		s.low, s.high, s.last, s.lastAt = x, x, x, t
	}
	slot := slotOf(t)
	residual := x - s.profile.predict(slot, x)
	if math.Abs(residual) <= roundOff*math.Abs(x) {
		residual = 0
	}
	drift := s.drift + float64(driftWeight*(residual-s.drift))
	step := x - s.last
	fast := s.fast + float64(fastWeight*(float64(step*step)-s.fast))
	slow := s.slow + float64(slowWeight*(float64(step*step)-s.slow))
	calm := 0.0
	if slow > 0 {
		calm = max(0, ln(slow/(fast+float64(calmLeast*slow))))
	}
	if !finite(residual) || !finite(drift) || !finite(fast) || !finite(slow) || !finite(calm) {
		return Parts{} // values that cannot be squared teach nothing
	}

	p := Parts{
		Residual: s.residuals.surprise(math.Abs(residual)),
		Drift:    float64(0.75 * s.drifts.surprise(math.Abs(drift))),
		Calm:     float64(0.5 * s.calms.surprise(calm)),
		Breakout: float64(4 * s.breakout(x)),
	}
	p.Total = p.Residual + p.Drift + p.Calm + p.Breakout
	if s.seen >= surpriseAfter {
		p.OK = true
		s.peak *= hold150
		if p.Total > s.peak {
			s.peak, p.Score = p.Total, p.Total
		}
	} else {
		p = Parts{}
	}

	s.residuals.learn(math.Abs(residual))
	s.drifts.learn(math.Abs(drift))
	s.calms.learn(calm)
	s.profile.learn(slot, t-s.lastAt, x)
	s.drift, s.fast, s.slow = drift, fast, slow
	s.low, s.high = min(s.low, x), max(s.high, x)
	s.last, s.lastAt = x, t
	s.seen = increment(s.seen)
	return p
}

// breakout is how far outside of all seen so far x lies, 1 at a small share of that range.
func (s *Surprise) breakout(x float64) float64 {
	outside := max(s.low-x, x-s.high)
	width := s.high - s.low
	if outside <= 0 || width <= 0 {
		return 0
	}
	return min(1, outside/(breakoutShare*width))
}
