package baseline

import (
	"encoding/binary"
	"math"
)

// AppendState appends everything that decides future scores, equal exactly for equal baselines.
func (b *Baseline) AppendState(dst []byte) []byte {
	le := binary.LittleEndian
	float := func(f float64) { dst = le.AppendUint64(dst, math.Float64bits(f)) }
	for i := range b.ring {
		float(b.ring[i].mean)
		float(b.ring[i].m2)
		float(b.ring[i].low)
		float(b.ring[i].high)
		dst = le.AppendUint32(dst, b.n[i])
	}
	for _, f := range [...]float64{b.last, b.low, b.high, b.peak} {
		float(f)
	}
	dst = le.AppendUint64(dst, uint64(b.start))
	dst = append(dst, b.current, 0, 0)
	if b.begun {
		dst[len(dst)-2] = 1
	}
	if b.ranged {
		dst[len(dst)-1] = 1
	}
	return dst
}
