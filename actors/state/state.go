// Package state is the alphabet of stored twins: varints, floats bit for bit, texts, and a Reader of
// them that survives any bytes. What is written with it, and which version of that, is up to those
// who use it.
//
// PURE: no I/O, no clock. A Reader belongs to one goroutine.
package state

import (
	"encoding/binary"
	"math"
)

// AppendFloat appends f bit for bit.
func AppendFloat(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

// AppendText appends a text of any bytes.
func AppendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
