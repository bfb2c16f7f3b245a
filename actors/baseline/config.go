package baseline

import "time"

// Config says how a Baseline looks back. Every metric of a twin uses the same one; the zero value of
// a field means what its comment says.
type Config struct {
	// WindowSamples is the window's length in samples, a multiple of 8 (0: 512). Not used with Window.
	WindowSamples int
	// Window is the window's length in event time (0: count samples instead).
	Window time.Duration
	// MinSamples is how many samples the window must hold before there is a score (at least 2).
	MinSamples int
	// FloorShare of the range seen is the least sigma that Plain and Score use (0: no floor).
	FloorShare float64
	// HoldHalfLife is after how many samples the peak that a score must top has halved (0: no hold).
	HoldHalfLife int
}

// Default is the configuration out of the box.
func Default() Config {
	return Config{WindowSamples: 512, MinSamples: 30, FloorShare: 0.03, HoldHalfLife: 150}
}

const (
	hold150    = 0.9953896791032291 // 2^(-1/150)
	rangeDecay = 0.9977843871238888 // 2^(-64/20000), once a pane of 64: half in 20,000 samples
)

func (c *Config) paneSamples() int {
	if c.WindowSamples <= 0 {
		return 512 / panes
	}
	return max(c.WindowSamples/panes, 1)
}

// holdDecay is by what the peak shrinks a sample, 2^(-1/HoldHalfLife).
func (c *Config) holdDecay() float64 {
	switch {
	case c.HoldHalfLife == 150:
		return hold150
	case c.HoldHalfLife <= 0:
		return 0
	}
	return exp2Neg(1 / float64(c.HoldHalfLife))
}

// exp2Neg is 2^-x for x in [0, 1] by its series. math.Exp2 has assembly on some processors that
// differs in the last bit, and the peak is state.
func exp2Neg(x float64) float64 {
	const ln2 = 0.69314718055994530942
	y, sum := -x*ln2, 1.0
	for n := 20.0; n >= 1; n-- {
		sum = 1 + float64(float64(y*sum)/n)
	}
	return sum
}
