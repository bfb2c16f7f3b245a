package device

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Sum is what a device knows of all it has sent: the two digests its twin must show when everything
// arrived, once and in order.
type Sum struct {
	// Digest folds the samples in their order; Set adds them up whatever their order.
	Digest, Set uint64
	// Samples added.
	Samples uint64
}

// Chain forms a Sum. It is written from the public definition and shares no code with the twin, so
// that a mistake in one shows against the other.
type Chain struct {
	Sum

	buf []byte
}

// Add takes one sample; its readings must be in byte order of name.
func (c *Chain) Add(s *Sample) {
	b := binary.LittleEndian.AppendUint64(c.buf[:0], 0)
	b = binary.LittleEndian.AppendUint64(b, s.Boot)
	b = binary.LittleEndian.AppendUint64(b, s.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Time))
	for _, r := range s.Readings {
		b = append(b, r.Name...)
		b = append(b, 0)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(r.Value))
	}
	c.buf = b

	c.Set += xxhash.Sum64(b)
	binary.LittleEndian.PutUint64(b, c.Digest)
	c.Digest = xxhash.Sum64(b)
	c.Samples++
}
