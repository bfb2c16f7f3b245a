package device

// Random is a small seeded generator (SplitMix64): eight bytes of state, so that a device carries
// its own and two devices never share one.
type Random struct {
	state uint64
}

// NewRandom returns the generator of a seed and a stream of it; equal arguments give equal numbers.
func NewRandom(seed, stream uint64) *Random {
	// Both are scrambled: streams a constant apart would else be one sequence, shifted.
	return &Random{state: scramble(scramble(seed+golden) ^ scramble(stream*golden+1))}
}

const golden = 0x9e3779b97f4a7c15

func scramble(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Uint64 is the next number.
func (r *Random) Uint64() uint64 {
	r.state += golden
	return scramble(r.state)
}

// Float is the next number in [0, 1).
func (r *Random) Float() float64 {
	return float64(r.Uint64()>>11) / (1 << 53)
}

// Between is the next number in [low, high).
func (r *Random) Between(low, high float64) float64 {
	return low + float64(r.Float()*(high-low))
}

// Intn is the next number in [0, n); n must be positive.
func (r *Random) Intn(n int) int {
	return int(r.Uint64() % uint64(n))
}

// Chance is true with probability p.
func (r *Random) Chance(p float64) bool {
	return p > 0 && r.Float() < p
}

// Noise has mean 0, standard deviation 1 and never leaves ±3.47 (four uniform numbers added), so
// that what lies far outside was put there by an anomaly and carries a label.
func (r *Random) Noise() float64 {
	const scale = 1.7320508075688772 / (1 << 15) // sqrt(12/4) over the width of a 16 bit number
	u := r.Uint64()
	sum := int64(u&0xffff) + int64(u>>16&0xffff) + int64(u>>32&0xffff) + int64(u>>48)
	return float64(sum-2*0xffff) * scale / 2
}
