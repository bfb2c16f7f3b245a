package state

import (
	"encoding/binary"
	"math/bits"
)

// Skip reads past n bytes.
func (r *Reader) Skip(n int) {
	if n > len(r.rest) {
		r.fail(errShort)
		return
	}
	r.rest = r.rest[n:]
}

// SkipInts reads past n integers of Uint or Int, eight bytes at a time.
func (r *Reader) SkipInts(n int) {
	const ends = 0x8080808080808080 // an integer ends with the first byte that has this bit not set
	b := r.rest
	for len(b) >= 8 {
		last := ^binary.LittleEndian.Uint64(b) & ends
		found := bits.OnesCount64(last)
		if found >= n {
			for ; n > 1; n-- {
				last &= last - 1
			}
			if n == 1 {
				b = b[bits.TrailingZeros64(last)/8+1:]
			}
			r.rest = b
			return
		}
		n -= found
		b = b[8:]
	}
	for ; n > 0; n-- {
		i := 0
		for i < len(b) && b[i] >= 0x80 {
			i++
		}
		if i == len(b) {
			r.fail(errShort)
			return
		}
		b = b[i+1:]
	}
	r.rest = b
}

// SkipText reads past a text.
func (r *Reader) SkipText() { r.text() }

// View reads a text that is only good until the bytes read from change.
func (r *Reader) View() []byte { return r.text() }
