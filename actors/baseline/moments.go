package baseline

import "math"

// moments of a set of samples: Welford's while they come one by one, Chan's when two sets meet.
type moments struct {
	n         uint32
	mean, m2  float64 // m2 is the sum of squared distances from the mean
	low, high float64
}

func (m *moments) add(x float64) {
	m.n++
	if m.n == 1 {
		*m = moments{n: 1, mean: x, low: x, high: x}
		return
	}
	d := x - m.mean
	m.mean += d / float64(m.n)
	m.m2 += float64(d * (x - m.mean))
	m.low, m.high = min(m.low, x), max(m.high, x)
}

func (m *moments) merge(o *moments) {
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		*m = *o
		return
	}
	a, b := float64(m.n), float64(o.n)
	d := o.mean - m.mean
	share := b / (a + b)
	m.mean += float64(d * share)
	m.m2 += o.m2 + float64(float64(d*d)*float64(a*share))
	m.low, m.high = min(m.low, o.low), max(m.high, o.high)
	m.n += o.n
}

// stddev of the sample (n-1); 0 for fewer than two.
func (m *moments) stddev() float64 {
	if m.n < 2 {
		return 0
	}
	return math.Sqrt(m.m2 / float64(m.n-1))
}

func (m *moments) stats() Stats {
	return Stats{Count: uint64(m.n), Mean: m.mean, Stddev: m.stddev(), Min: m.low, Max: m.high}
}
