package baseline

import (
	"math"
	"time"
)

// profile is a mean for each hour of working days and of weekends, UTC.
type profile struct {
	mean  [48]float64
	count [48]uint32
	all   float64
	n     uint32
}

// slotOf is the hour of the day, of a weekend 24 more.
func slotOf(t int64) int {
	hours := floorDiv(t, int64(time.Hour))
	day := floorDiv(hours, 24)
	slot := int(hours - 24*day)
	if weekday := ((day+4)%7 + 7) % 7; weekday == 0 || weekday == 6 { // 1970-01-01 was a Thursday
		slot += 24
	}
	return slot
}

// predict gives x itself while nothing is known.
func (p *profile) predict(slot int, x float64) float64 {
	switch {
	case p.count[slot] >= 3:
		return p.mean[slot]
	case p.n > 0:
		return p.all
	default:
		return x
	}
}

// learn weighs a sample by the time it stands for, so that a sample a second and one an hour teach
// the same.
func (p *profile) learn(slot int, elapsed int64, x float64) {
	p.n = increment(p.n)
	p.all += (x - p.all) / float64(p.n)
	p.count[slot] = increment(p.count[slot])
	elapsed = min(max(elapsed, 0), int64(time.Hour))
	u := float64(elapsed) / float64(12_000*time.Second)
	// 1 - exp(-u) by its series: u is at most 0.3.
	weight := float64(u * (1 - float64(u/2*(1-float64(u/3*(1-float64(u/4*(1-u/5))))))))
	weight = max(weight, 1/float64(p.count[slot]))
	p.mean[slot] += float64(weight * (x - p.mean[slot]))
}

// increment stays at the largest number, where one more makes no difference.
func increment(n uint32) uint32 { return n + min(math.MaxUint32-n, 1) }
