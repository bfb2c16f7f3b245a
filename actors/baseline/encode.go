package baseline

import (
	"encoding/binary"
	"math"

	"github.com/doppel-iot/doppel/actors/state"
)

// The first byte of an encoded baseline. The number of the current pane stands above the flags.
const (
	hasBegun  = 1 << iota
	hasRange  // low and high are set
	hasPeak   // peak is not 0
	evenPanes // all panes with samples but the current one hold equally many
	allUnits  // every number of a pane is stored as units
	currentAt = iota
)

// The second byte: how many decimals a unit has, and which of the numbers outside panes are stored as
// units.
const (
	noDigits  = 7
	headAt    = 3 // last, low, high
	headBits  = 3
	paneBits  = 4 // numbers of a pane
	formBytes = panes * paneBits / 8
)

// Newest is the newest sample and, where the window is one of samples, its event time.
func (b *Baseline) Newest() (x float64, t int64) { return b.last, b.start }

// Encode appends the baseline for Decode, bit for bit. near is a time likely to be near its samples'.
// The merge of the panes is not stored: it follows from them.
func (b *Baseline) Encode(dst []byte, near int64) []byte {
	if !b.begun {
		return append(dst, 0)
	}
	flags := byte(hasBegun) | b.current<<currentAt
	if b.ranged {
		flags |= hasRange
	}
	if math.Float64bits(b.peak) != 0 {
		flags |= hasPeak
	}
	filled, count, even := b.filled()
	if even {
		flags |= evenPanes
	}
	digits := b.digits()
	at := len(dst)
	dst = append(dst, flags, 0, filled)
	dst = binary.AppendVarint(dst, b.start-near)
	if even {
		dst = binary.AppendUvarint(dst, uint64(count))
	}
	c := coder{b: dst}
	if digits <= maxDigits {
		c.scale = powers[digits]
	}
	near = c.value(b.last, 0)
	if b.ranged {
		c.value(b.low, near)
		c.value(b.high, near)
	}
	head := c.forms
	c.forms, c.next = 0, 0
	forms := len(c.b)
	c.b = append(c.b, make([]byte, formBytes)...)
	for i := 1; i <= panes; i++ {
		p := (int(b.current) + i) % panes
		if b.n[p] == 0 {
			continue
		}
		if !even || p == int(b.current) {
			c.b = binary.AppendUvarint(c.b, uint64(b.n[p]))
		}
		near = c.pane(&b.ring[p], b.n[p], near)
	}
	if c.forms == 1<<c.next-1 {
		flags |= allUnits
		c.b = append(c.b[:forms], c.b[forms+formBytes:]...)
	} else {
		binary.LittleEndian.PutUint32(c.b[forms:], uint32(c.forms))
	}
	c.b[at], c.b[at+1] = flags, byte(digits)|byte(head)<<headAt
	if flags&hasPeak != 0 {
		c.b = state.AppendFloat(c.b, b.peak)
	}
	return c.b
}

// pane appends a pane and returns its minimum in units, which the next one's is likely to be near.
func (c *coder) pane(s *spread, n uint32, near int64) int64 {
	low := c.value(s.low, near)
	c.value(s.high, low)
	scale := float64(float64(n) * c.scale)
	c.derived(s.mean, scale, low*int64(n))
	c.derived(s.m2, float64(scale*c.scale), 0)
	return low
}

// filled lists the panes with samples, one bit for each, and says how many samples each of them but
// the current one holds, if that is the same number.
func (b *Baseline) filled() (filled byte, count uint32, even bool) {
	even = true
	for p := range panes {
		n := b.n[p]
		if n == 0 {
			continue
		}
		filled |= 1 << p
		if p == int(b.current) {
			continue
		}
		even = even && (count == 0 || n == count)
		count = n
	}
	return filled, count, even && count != 0
}

// digits is how many decimals the samples have, as far as one can see; noDigits if they are no
// decimals.
func (b *Baseline) digits() int {
	n, ok := digits(b.last, 0)
	if !ok {
		return noDigits
	}
	for p := range panes {
		if b.n[p] == 0 {
			continue
		}
		for _, x := range [...]float64{b.ring[p].low, b.ring[p].high} {
			if n, ok = digits(x, n); !ok {
				return noDigits
			}
		}
	}
	return n
}

// Decode makes b what was encoded; near is what Encode was given. What no baseline can be is a
// failure of the reader, and b is then good for nothing.
func (b *Baseline) Decode(in *state.Reader, near int64) {
	*b = Baseline{}
	flags := in.Byte()
	if flags == 0 {
		return
	}
	second, filled := in.Byte(), in.Byte()
	*b = Baseline{begun: true, current: flags >> currentAt, ranged: flags&hasRange != 0, start: near + in.Int()}
	digits := int(second & (1<<headAt - 1))
	if flags&hasBegun == 0 || digits > maxDigits && digits != noDigits {
		in.Fail("baseline with flags %#x, %#x", flags, second)
		return
	}
	var count uint64
	if flags&evenPanes != 0 {
		count = in.Uint()
	}
	d := decoder{in: in, forms: uint64(second >> headAt)}
	if digits <= maxDigits {
		d.scale = powers[digits]
	}
	var at int64
	b.last, at = d.value(0)
	if b.ranged {
		b.low, _ = d.value(at)
		b.high, _ = d.value(at)
	}
	d.forms = math.MaxUint64
	if flags&allUnits == 0 {
		d.forms = uint64(in.Byte()) | uint64(in.Byte())<<8 | uint64(in.Byte())<<16 | uint64(in.Byte())<<24
	}
	for i := 1; i <= panes; i++ {
		p := (int(b.current) + i) % panes
		if filled&(1<<p) == 0 {
			continue
		}
		n := count
		if flags&evenPanes == 0 || p == int(b.current) {
			n = in.Uint()
		}
		if n == 0 || n > math.MaxUint32 {
			in.Fail("baseline pane of %d samples", n)
			return
		}
		b.n[p] = uint32(n)
		at = d.pane(&b.ring[p], b.n[p], at)
	}
	if flags&hasPeak != 0 {
		b.peak = in.Float()
	}
	b.merge()
}

func (d *decoder) pane(s *spread, n uint32, near int64) int64 {
	var low int64
	s.low, low = d.value(near)
	s.high, _ = d.value(low)
	scale := float64(float64(n) * d.scale)
	s.mean = d.derived(scale, low*int64(n))
	s.m2 = d.derived(float64(scale*d.scale), 0)
	return low
}
