package codec

import (
	"encoding/binary"
	"fmt"
	"math"
)

// packKind is the type of a MessagePack value.
type packKind uint8

const (
	packNone packKind = iota // after an error
	packNil
	packBool
	packInt
	packFloat
	packString
	packBinary
	packArray
	packMap
	packExt
)

// String names the kind, for people.
func (k packKind) String() string {
	return [...]string{
		"nothing", "nil", "a boolean", "an integer", "a float", "a string", "binary data", "an array", "a map", "an extension",
	}[k]
}

// packed is one value, of an array or map only its head.
type packed struct {
	kind  packKind
	ext   int8   // type of an extension
	neg   bool   // bits are those of a negative int64
	bits  uint64 // of an integer, a float64, a boolean
	len   int    // elements of an array, members of a map
	bytes []byte // of a string, binary data or an extension
}

func (v packed) numeric() bool { return v.kind == packInt || v.kind == packFloat }

// integer is the number of a numeric value.
func (v packed) integer() integer {
	switch {
	case v.kind == packFloat:
		f := math.Float64frombits(v.bits)
		return integer{fraction: true, token: fmt.Appendf(nil, "%v", f)}
	case v.neg:
		return signed(int64(v.bits))
	}
	return unsigned(v.bits)
}

// float is the value of a number, 0 or 1 of a boolean.
func (v packed) float() float64 {
	switch {
	case v.kind == packFloat:
		return math.Float64frombits(v.bits)
	case v.neg:
		return float64(int64(v.bits))
	}
	return float64(v.bits)
}

// timestamp reads the timestamp extension (type -1) in its three lengths.
func (v packed) timestamp() (sec, nsec int64, ok bool) {
	if v.ext != -1 {
		return 0, 0, false
	}
	switch len(v.bytes) {
	case 4:
		sec = int64(binary.BigEndian.Uint32(v.bytes))
	case 8:
		u := binary.BigEndian.Uint64(v.bytes)
		sec, nsec = int64(u&(1<<34-1)), int64(u>>34)
	case 12:
		nsec = int64(binary.BigEndian.Uint32(v.bytes))
		sec = int64(binary.BigEndian.Uint64(v.bytes[4:]))
	default:
		return 0, 0, false
	}
	return sec, nsec, nsec < 1e9
}

// reader reads MessagePack without allocating. Like scanner it keeps the first problem and goes to
// the end.
type reader struct {
	b       []byte
	i       int
	problem string
}

func (r *reader) reset(b []byte) {
	r.b, r.i, r.problem = b, 0, ""
}

func (r *reader) fail(format string, args ...any) packed {
	if r.problem == "" {
		r.problem = fmt.Sprintf("byte %d: ", r.i) + fmt.Sprintf(format, args...)
	}
	r.i = len(r.b)
	return packed{}
}

// value reads the next value, of an array or map only the head.
func (r *reader) value() packed {
	if r.i >= len(r.b) {
		return r.fail("the message ends too early")
	}
	c := r.b[r.i]
	r.i++
	switch {
	case c <= 0x7f:
		return packed{kind: packInt, bits: uint64(c)}
	case c <= 0x8f:
		return packed{kind: packMap, len: int(c & 0x0f)}
	case c <= 0x9f:
		return packed{kind: packArray, len: int(c & 0x0f)}
	case c <= 0xbf:
		return r.data(packString, uint64(c&0x1f))
	case c >= 0xe0:
		return packed{kind: packInt, neg: true, bits: uint64(int64(int8(c)))}
	}
	switch c {
	case 0xc0:
		return packed{kind: packNil}
	case 0xc2, 0xc3:
		return packed{kind: packBool, bits: uint64(c & 1)}
	case 0xc4, 0xc5, 0xc6:
		return r.data(packBinary, r.uint(1<<(c-0xc4)))
	case 0xc7, 0xc8, 0xc9:
		return r.extension(r.uint(1 << (c - 0xc7)))
	case 0xca:
		return packed{kind: packFloat, bits: math.Float64bits(float64(math.Float32frombits(uint32(r.uint(4)))))}
	case 0xcb:
		return packed{kind: packFloat, bits: r.uint(8)}
	case 0xcc, 0xcd, 0xce, 0xcf:
		return packed{kind: packInt, bits: r.uint(1 << (c - 0xcc))}
	case 0xd0, 0xd1, 0xd2, 0xd3:
		size := 1 << (c - 0xd0)
		n := int64(r.uint(size)) << (64 - 8*size) >> (64 - 8*size)
		return packed{kind: packInt, neg: n < 0, bits: uint64(n)}
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return r.extension(1 << (c - 0xd4))
	case 0xd9, 0xda, 0xdb:
		return r.data(packString, r.uint(1<<(c-0xd9)))
	case 0xdc, 0xdd:
		return r.container(packArray, r.uint(2<<(c-0xdc)))
	case 0xde, 0xdf:
		return r.container(packMap, r.uint(2<<(c-0xde)))
	}
	r.i--
	return r.fail("%#x begins no value", c)
}

// uint reads a big endian number of 1, 2, 4 or 8 bytes.
func (r *reader) uint(size int) uint64 {
	if len(r.b)-r.i < size {
		r.fail("the message ends too early")
		return 0
	}
	var n uint64
	for _, c := range r.b[r.i : r.i+size] {
		n = n<<8 | uint64(c)
	}
	r.i += size
	return n
}

// data reads the bytes of a string, binary data or an extension.
func (r *reader) data(kind packKind, size uint64) packed {
	if r.problem != "" {
		return packed{}
	}
	if size > uint64(len(r.b)-r.i) {
		return r.fail("the message ends too early")
	}
	start := r.i
	r.i += int(size)
	return packed{kind: kind, bytes: r.b[start:r.i:r.i]}
}

func (r *reader) extension(size uint64) packed {
	typ := int8(r.uint(1))
	v := r.data(packExt, size)
	v.ext = typ
	return v
}

// container checks a count against the bytes that are left, of which each element needs one.
func (r *reader) container(kind packKind, size uint64) packed {
	if r.problem != "" {
		return packed{}
	}
	if size > uint64(len(r.b)-r.i) {
		return r.fail("the message ends too early")
	}
	return packed{kind: kind, len: int(size)}
}

// skip reads a whole value.
func (r *reader) skip() { r.pass(r.value(), 0) }

// rest reads what belongs to v behind its head.
func (r *reader) rest(v packed) { r.pass(v, 0) }

func (r *reader) pass(v packed, depth int) {
	n := v.len
	if v.kind == packMap {
		n *= 2
	}
	if n > 0 && depth > maxNesting {
		r.fail("nested deeper than %d levels", maxNesting)
	}
	for range n {
		if r.problem != "" {
			return
		}
		r.pass(r.value(), depth+1)
	}
}
