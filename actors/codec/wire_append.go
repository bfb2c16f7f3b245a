package codec

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// open begins a field of a message type; shut ends it. The length gets one byte, which is enough for
// most; shut makes room if not.
func open(b []byte, num protowire.Number) (out []byte, at int) {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return append(b, 0), len(b) + 1
}

func shut(b []byte, at int) []byte {
	size := len(b) - at
	if size < 0x80 {
		b[at-1] = byte(size)
		return b
	}
	more := protowire.SizeVarint(uint64(size)) - 1
	for range more {
		b = append(b, 0)
	}
	copy(b[at+more:], b[at:at+size])
	protowire.AppendVarint(b[:at-1], uint64(size))
	return b
}

// The fields of proto3: what has the zero value is left out.

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	return appendOptional(b, num, v, v != 0)
}

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	return appendOptional(b, num, 1, v)
}

// appendOptional appends a field with presence.
func appendOptional(b []byte, num protowire.Number, v uint64, present bool) []byte {
	if !present {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// appendFixed appends a fixed64, sfixed64 or, given its bits, double.
func appendFixed(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, v)
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// appendText is appendString for text nobody checked: protobuf refuses strings that are not UTF-8.
func appendText(b []byte, num protowire.Number, s string) []byte {
	return appendString(b, num, strings.ToValidUTF8(s, "\uFFFD"))
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// appendPacked begins a packed field of n doubles.
func appendPacked(b []byte, num protowire.Number, n int) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendVarint(b, 8*uint64(n))
}

func appendDouble(b []byte, v float64) []byte {
	return protowire.AppendFixed64(b, math.Float64bits(v))
}
