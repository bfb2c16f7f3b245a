package device

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// profile is what readings of a kind of sensor look like; sigma is the noise of one reading.
type profile struct {
	name             string
	low, high, sigma float64 // range of the levels devices differ by
}

// Levels stay at least 20 sigma away from zero, so that a dropout is one.
func profiles() []profile {
	return []profile{
		{"temperature", 40, 75, 0.6},
		{"vibration", 1.2, 2.8, 0.05},
		{"pressure", 3, 6, 0.04},
		{"current", 8, 20, 0.2},
		{"flow", 40, 120, 1},
		{"humidity", 35, 60, 0.5},
		{"level", 50, 90, 0.4},
		{"speed", 1400, 1500, 4},
		{"torque", 30, 60, 0.5},
		{"voltage", 228, 234, 0.3},
	}
}

// metric is the signal of one sensor: level + season + drift + autocorrelated noise.
type metric struct {
	name          string
	level, sigma  float64
	season, phase float64 // amplitude, and phase in turns
	period        float64 // nanoseconds
	drift, noise  float64 // current, in sigmas
	last          float64 // last value given, distorted or not
}

func newMetrics(r *Random, n int) []metric {
	all := profiles()
	ms := make([]metric, 0, n)
	for i := range n {
		p := all[i%len(all)]
		name := p.name
		if i >= len(all) {
			name = fmt.Sprintf("%s_%d", p.name, i/len(all)+1)
		}
		m := metric{
			name:   name,
			level:  r.Between(p.low, p.high),
			sigma:  p.sigma,
			season: r.Between(0.5, 1.6) * p.sigma,
			phase:  r.Float(),
			period: r.Between(10, 40) * 60e9,
		}
		m.last = m.level
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return ms
}

// next is the undisturbed value at an event time, rounded to what such a sensor resolves.
func (m *metric) next(r *Random, at int64) float64 {
	m.noise = float64(0.5*m.noise) + float64(0.866*r.Noise())
	m.drift = float64(0.999*m.drift) + float64(0.01*r.Noise())
	turns := float64(at)/m.period + m.phase
	return m.level + float64(m.season*math.Sin(2*math.Pi*(turns-math.Floor(turns)))) + float64(m.sigma*(m.noise+m.drift))
}

// round keeps three decimals, so that a value is short as JSON.
func round(v float64) float64 {
	return math.Round(v*1000) / 1000
}
