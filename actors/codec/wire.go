package codec

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// wire reads the fields of one protobuf message without allocating.
type wire struct {
	b   []byte
	num protowire.Number
	typ protowire.Type
	bad bool
}

// next reads the next tag; false at the end or if the bytes are no message (then bad).
func (w *wire) next() bool {
	if len(w.b) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(w.b)
	if n < 0 {
		return w.fail()
	}
	w.num, w.typ, w.b = num, typ, w.b[n:]
	return true
}

func (w *wire) fail() bool {
	w.b, w.bad = nil, true
	return false
}

// is says whether the field just met is this one; of another type it is unknown, as in every
// protobuf library.
func (w *wire) is(num protowire.Number, typ protowire.Type) bool { return w.num == num && w.typ == typ }

func (w *wire) skip() {
	n := protowire.ConsumeFieldValue(w.num, w.typ, w.b)
	if n < 0 {
		w.fail()
		return
	}
	w.b = w.b[n:]
}

func (w *wire) varint() uint64 {
	v, n := protowire.ConsumeVarint(w.b)
	if n < 0 {
		w.fail()
		return 0
	}
	w.b = w.b[n:]
	return v
}

func (w *wire) fixed64() uint64 {
	v, n := protowire.ConsumeFixed64(w.b)
	if n < 0 {
		w.fail()
		return 0
	}
	w.b = w.b[n:]
	return v
}

func (w *wire) bytes() []byte {
	v, n := protowire.ConsumeBytes(w.b)
	if n < 0 {
		w.fail()
		return nil
	}
	w.b = w.b[n:]
	return v
}

// doubles reads a repeated double, packed or not.
func (w *wire) doubles(dst []float64) []float64 {
	if w.typ == protowire.Fixed64Type {
		return append(dst, math.Float64frombits(w.fixed64()))
	}
	b := w.bytes()
	for len(b) > 0 {
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			w.fail()
			return dst
		}
		dst, b = append(dst, math.Float64frombits(v)), b[n:]
	}
	return dst
}

// isDoubles says whether the field just met is this repeated double.
func (w *wire) isDoubles(num protowire.Number) bool {
	return w.num == num && (w.typ == protowire.BytesType || w.typ == protowire.Fixed64Type)
}
