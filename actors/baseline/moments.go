package baseline

import "math"

// spread of a set of samples whose count is kept apart: together they would be padded.
type spread struct {
	mean, m2  float64 // m2 is the sum of squared distances from the mean
	low, high float64
}

// add takes x in as the n-th sample (Welford).
func (s *spread) add(n uint32, x float64) {
	if n == 1 {
		*s = spread{mean: x, low: x, high: x}
		return
	}
	d := x - s.mean
	s.mean += d / float64(n)
	s.m2 += float64(d * (x - s.mean))
	s.include(x, x)
}

// include widens [low, high]. Plain comparisons: min and max cost more for the sake of NaN.
func (s *spread) include(low, high float64) {
	if low < s.low {
		s.low = low
	}
	if high > s.high {
		s.high = high
	}
}

// moments is a spread with its count.
type moments struct {
	spread
	n uint32
}

func (m *moments) merge(o *moments) {
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		*m = *o
		return
	}
	m.n, m.mean, m.m2 = pooled(m.n, o.n, m.mean, o.mean, m.m2, o.m2)
	m.include(o.low, o.high)
}

// pooled is count, mean and sum of squared distances of two sets together, neither of them empty
// (Chan, Golub and LeVeque).
func pooled(na, nb uint32, meanA, meanB, m2A, m2B float64) (n uint32, mean, m2 float64) {
	a, b := float64(na), float64(nb)
	d := meanB - meanA
	share := b / (a + b)
	return na + nb, meanA + float64(d*share), m2A + m2B + float64(float64(d*d)*float64(a*share))
}

// deviation is the standard deviation of a sample (n-1); 0 for fewer than two.
func deviation(n uint32, m2 float64) float64 {
	if n < 2 {
		return 0
	}
	return math.Sqrt(m2 / float64(n-1))
}
