package baseline

import "math"

// tail remembers how large a quantity usually is: counts by size, three bins an octave. It moves up
// with larger values; what falls off below joins the lowest bin.
type tail struct {
	bins [32]uint32
	n    uint32
	base int32 // number of the lowest bin
	some bool  // base is set
}

const (
	mostSurprise  = 6 // decades
	beyondRecord  = 4 // decades an octave
	binsAnOctave  = 3
	cubeRootTwo   = 1.2599210498948732
	cubeRootFour  = 1.5874010519681994
	smallestValue = 1e-300 // what 0 counts as
)

// binOf is the bin of v and how far into it v lies, 0 to 1.
func binOf(v float64) (bin int32, inside float64) {
	fraction, exponent := math.Frexp(max(v, smallestValue)) // fraction in [0.5, 1)
	bin = int32(exponent) * binsAnOctave
	m := fraction * 2
	switch {
	case m >= cubeRootFour:
		return bin + 2, (m - cubeRootFour) / (2 - cubeRootFour)
	case m >= cubeRootTwo:
		return bin + 1, (m - cubeRootTwo) / (cubeRootFour - cubeRootTwo)
	default:
		return bin, (m - 1) / (cubeRootTwo - 1)
	}
}

// surprise is how rare a value of at least v is, in decades.
func (t *tail) surprise(v float64) float64 {
	if t.n == 0 {
		return 0
	}
	bin, inside := binOf(v)
	at := int(bin - t.base)
	above := 0.0
	record := 0
	for i := len(t.bins) - 1; i >= 0; i-- {
		if t.bins[i] > 0 {
			record = max(record, i)
		}
		switch {
		case i > at:
			above += float64(t.bins[i])
		case i == at:
			above += float64(float64(t.bins[i]) * (1 - inside))
		}
	}
	rare := -log10((above + 1) / float64(uint64(t.n)+2))
	if at > record {
		rare += float64(beyondRecord * (float64(at-record-1) + inside) / binsAnOctave)
	}
	return min(max(rare, 0), mostSurprise)
}

func (t *tail) learn(v float64) {
	bin, _ := binOf(v)
	if !t.some {
		t.base, t.some = bin-int32(len(t.bins))/2, true
	}
	if up := int(bin-t.base) - (len(t.bins) - 1); up > 0 {
		t.moveUp(up)
	}
	t.bins[max(int(bin-t.base), 0)]++
	t.n++
}

func (t *tail) moveUp(by int) {
	var fallen uint32
	for i := range t.bins {
		if i <= by {
			fallen += t.bins[i]
		}
	}
	for i := range t.bins {
		t.bins[i] = 0
		if i+by < len(t.bins) {
			t.bins[i] = t.bins[i+by]
		}
	}
	t.bins[0] = fallen
	t.base += int32(by)
}

func log10(x float64) float64 { return ln(x) / math.Ln10 }

// ln is the natural logarithm by a series. That of math has assembly on some processors which
// differs in the last bit.
func ln(x float64) float64 {
	fraction, exponent := math.Frexp(x)
	if fraction < math.Sqrt2/2 {
		fraction, exponent = fraction*2, exponent-1
	}
	y := (fraction - 1) / (fraction + 1) // at most 0.172 in size
	y2 := float64(y * y)
	sum := 0.0
	for k := 21; k >= 1; k -= 2 {
		sum = 1/float64(k) + float64(y2*sum)
	}
	return float64(float64(exponent)*math.Ln2) + float64(2*y*sum)
}
