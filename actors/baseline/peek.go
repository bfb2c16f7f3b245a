package baseline

import (
	"math"
	"math/bits"

	"github.com/doppel-iot/doppel/actors/state"
)

// Peek reads past an encoded baseline and gives what Newest would give, at a fraction of what Decode
// costs. near is what Encode was given.
func Peek(in *state.Reader, near int64) (x float64, t int64) {
	flags := in.Byte()
	if flags == 0 {
		return 0, 0
	}
	second, filled := in.Byte(), in.Byte()
	t = near + in.Int()
	even := flags&evenPanes != 0
	if even {
		in.SkipInts(1)
	}
	d := decoder{in: in, forms: uint64(second >> headAt)}
	if digits := second & (1<<headAt - 1); digits <= maxDigits {
		d.scale = powers[digits]
	}
	x, _ = d.value(0)
	if flags&hasRange != 0 {
		d.skip(2, 1)
	}
	n := bits.OnesCount8(filled)
	counted := n // panes that say how many samples they hold
	if even {
		counted = bits.OnesCount8(filled & (1 << (flags >> currentAt)))
	}
	if flags&allUnits != 0 && d.scale != 0 {
		in.SkipInts(counted + 6*n) // low and high, and two for each of mean and squares
	} else {
		d.forms = math.MaxUint64
		if flags&allUnits == 0 {
			d.forms = uint64(in.Byte()) | uint64(in.Byte())<<8 | uint64(in.Byte())<<16 | uint64(in.Byte())<<24
		}
		for i := 1; i <= panes; i++ {
			p := (int(flags>>currentAt) + i) % panes
			if filled&(1<<p) == 0 {
				continue
			}
			if !even || p == int(flags>>currentAt) {
				in.SkipInts(1)
			}
			d.skip(2, 1)
			d.skip(2, 2)
		}
	}
	if flags&hasPeak != 0 {
		in.Skip(8)
	}
	return x, t
}

// skip reads past n numbers that are so many integers each where they are units.
func (d *decoder) skip(n, integers int) {
	for range n {
		if d.isUnits() {
			d.in.SkipInts(integers)
		} else {
			d.in.Skip(8)
		}
	}
}
