package selection

import (
	"maps"
	"math"
	"slices"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// accuracy is how far a quantile may lie from a value that is there, as a part of it.
const accuracy = 0.01

// growth is the factor between the bounds of two buckets: all values of one lie within accuracy of
// 2·bound/(1+growth).
const growth = (1 + accuracy) / (1 - accuracy)

var perBucket = 1 / math.Log(growth)

// Sketch counts values in buckets, so that quantiles can be told and sketches of different nodes added
// up. It grows with the logarithm of the range of the values, never with how many there are: at most
// some 70,000 buckets of either sign, a few hundred in practice.
type Sketch struct {
	count              int64
	sum, low, high     float64
	positive, negative map[int32]int64
	zero               int64
}

// Add counts a finite value.
func (s *Sketch) Add(x float64) {
	if s.count == 0 {
		s.low, s.high = x, x
	}
	s.count++
	s.sum += x
	s.low, s.high = min(s.low, x), max(s.high, x)
	switch {
	case x > 0:
		if s.positive == nil {
			s.positive = make(map[int32]int64)
		}
		s.positive[bucket(x)]++
	case x < 0:
		if s.negative == nil {
			s.negative = make(map[int32]int64)
		}
		s.negative[bucket(-x)]++
	default:
		s.zero++
	}
}

func bucket(x float64) int32 { return int32(math.Ceil(math.Log(x) * perBucket)) }

// AddProto adds a sketch that another node made. What no sketch can be counts as little as it can.
func (s *Sketch) AddProto(m *doppelv1.MetricSketch) {
	if m.GetCount() <= 0 {
		return
	}
	if s.count == 0 {
		s.low, s.high = m.GetMin(), m.GetMax()
	}
	s.count += m.GetCount()
	s.sum += m.GetSum()
	s.low, s.high = min(s.low, m.GetMin()), max(s.high, m.GetMax())
	s.zero += m.GetZero()
	s.positive = added(s.positive, m.GetPositive())
	s.negative = added(s.negative, m.GetNegative())
}

func added(to, from map[int32]int64) map[int32]int64 {
	if to == nil && len(from) > 0 {
		to = make(map[int32]int64, len(from))
	}
	for i, n := range from {
		to[i] += n
	}
	return to
}

// Proto is the sketch for another node. It shares memory with s.
func (s *Sketch) Proto() *doppelv1.MetricSketch {
	return &doppelv1.MetricSketch{Count: s.count, Sum: s.sum, Min: s.low, Max: s.high, Positive: s.positive, Negative: s.negative, Zero: s.zero}
}

// Summary is what people are told.
func (s *Sketch) Summary(quantiles []float64) *doppelv1.MetricSummary {
	m := &doppelv1.MetricSummary{Count: s.count, Min: s.low, Max: s.high}
	if s.count > 0 {
		m.Mean = s.sum / float64(s.count)
	}
	negative := slices.Sorted(maps.Keys(s.negative))
	slices.Reverse(negative)
	positive := slices.Sorted(maps.Keys(s.positive))
	for _, q := range quantiles {
		m.Quantiles = append(m.Quantiles, s.quantile(q, negative, positive))
	}
	return m
}

// quantile is within accuracy of the value with q of the others below it.
func (s *Sketch) quantile(q float64, negative, positive []int32) float64 {
	rank := int64(q * float64(s.count-1))
	switch {
	case rank <= 0:
		return s.low
	case rank >= s.count-1:
		return s.high
	}
	for _, i := range negative { // the lowest first
		if rank -= s.negative[i]; rank < 0 {
			return s.within(-middle(i))
		}
	}
	if rank -= s.zero; rank < 0 {
		return 0
	}
	for _, i := range positive {
		if rank -= s.positive[i]; rank < 0 {
			return s.within(middle(i))
		}
	}
	return s.high
}

func (s *Sketch) within(x float64) float64 { return min(max(x, s.low), s.high) }

func middle(i int32) float64 { return 2 / (1 + growth) * math.Exp(float64(i)/perBucket) }
