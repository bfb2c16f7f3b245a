package baseline

import (
	"encoding/binary"
	"math"

	"github.com/doppel-iot/doppel/actors/state"
)

// Sensors send decimals: 21.5 is the float64 nearest to 215/10. Such a value is stored as its whole
// number of units, and so are, with the count as a further divisor, a mean and a sum of squares of
// such values: they lie but a few last places from a fraction of whole numbers. The distance is
// stored too, so nothing is lost whatever the values are; where that takes more room than eight
// bytes it is not done.

// maxDigits is how many decimals are looked for.
const maxDigits = 6

var powers = [maxDigits + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6}

const maxUnits = 1 << 53

// units is x in units of 1/scale, if it is a whole number of them.
func units(x, scale float64) (n int64, ok bool) {
	n, ok = nearest(float64(x * scale))
	return n, ok && math.Float64bits(float64(n)/scale) == math.Float64bits(x)
}

func nearest(y float64) (n int64, ok bool) {
	if !(math.Abs(y) < maxUnits) {
		return 0, false
	}
	return int64(y + math.Copysign(0.5, y)), true
}

// digits is how many decimals x has, at least from; ok is false if there are too many.
func digits(x float64, from int) (n int, ok bool) {
	for n = from; n <= maxDigits; n++ {
		if _, ok := units(x, powers[n]); ok {
			return n, true
		}
	}
	return from, false
}

// fraction is the whole number whose quotient by scale is nearest to x, and how many places x lies
// from that quotient. ok is false where eight bytes say it as well.
func fraction(x, scale float64) (n, off int64, ok bool) {
	if n, ok = nearest(float64(x * scale)); !ok {
		return 0, 0, false
	}
	off = int64(math.Float64bits(x) - math.Float64bits(float64(n)/scale))
	return n, off, off > -1<<12 && off < 1<<12
}

// quotient undoes fraction.
func quotient(n, off int64, scale float64) float64 {
	return math.Float64frombits(math.Float64bits(float64(n)/scale) + uint64(off))
}

// coder appends the numbers of one baseline, each in one of two forms: as units or as it is.
type coder struct {
	b     []byte
	scale float64 // units in 1; 0: nothing is stored as units
	forms uint64  // bit i is set if number i is stored as units
	next  uint
}

// value appends a sample, as its distance from near in units.
func (c *coder) value(x float64, near int64) (n int64) {
	n, ok := int64(0), false
	if c.scale != 0 {
		n, ok = units(x, c.scale)
	}
	if c.form(ok) {
		c.b = binary.AppendVarint(c.b, n-near)
		return n
	}
	c.b = state.AppendFloat(c.b, x)
	return near
}

// derived appends a mean (its scale is that of values times the count) or a sum of squares.
func (c *coder) derived(x, scale float64, near int64) {
	n, off, ok := int64(0), int64(0), false
	if c.scale != 0 {
		n, off, ok = fraction(x, scale)
	}
	if c.form(ok) {
		c.b = binary.AppendVarint(binary.AppendVarint(c.b, n-near), off)
		return
	}
	c.b = state.AppendFloat(c.b, x)
}

func (c *coder) form(isUnits bool) bool {
	if isUnits {
		c.forms |= 1 << c.next
	}
	c.next++
	return isUnits
}

// decoder undoes coder.
type decoder struct {
	in    *state.Reader
	scale float64
	forms uint64 // of the numbers to come
}

func (d *decoder) isUnits() bool {
	is := d.forms&1 != 0
	d.forms >>= 1
	return is && d.scale != 0
}

func (d *decoder) value(near int64) (x float64, n int64) {
	if !d.isUnits() {
		return d.in.Float(), near
	}
	n = near + d.in.Int()
	return float64(n) / d.scale, n
}

func (d *decoder) derived(scale float64, near int64) float64 {
	if !d.isUnits() {
		return d.in.Float()
	}
	n := near + d.in.Int()
	return quotient(n, d.in.Int(), scale)
}
