package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

var errShort = errors.New("ends too early")

// Reader reads what was appended. After the first failure it gives zeros and keeps the error, so
// that callers need to look only once. It allocates no more than a small multiple of its input.
type Reader struct {
	rest  []byte
	err   error
	names func([]byte) string
}

// NewReader reads b. names turns the bytes of a name into a string that may be shared with other
// twins; nil: each gets its own.
func NewReader(b []byte, names func([]byte) string) Reader {
	if names == nil {
		names = func(b []byte) string { return string(b) }
	}
	return Reader{rest: b, names: names}
}

// Err is the first failure.
func (r *Reader) Err() error { return r.err }

// Len is how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Fail makes the Reader fail, unless it has failed before.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.fail(fmt.Errorf(format, args...))
	}
}

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.rest) == 0 {
		r.fail(errShort)
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

// Uint reads what binary.AppendUvarint appended.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Int reads what binary.AppendVarint appended.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Fixed reads eight bytes, little endian.
func (r *Reader) Fixed() uint64 {
	if len(r.rest) < 8 {
		r.fail(errShort)
		return 0
	}
	v := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return v
}

// Float reads what AppendFloat appended.
func (r *Reader) Float() float64 { return math.Float64frombits(r.Fixed()) }

// Count reads a number of items that take at least least bytes each, and at most limit of them; more
// than can follow is a failure, so that it is safe to allocate for that many.
func (r *Reader) Count(least, limit int) int {
	n := r.Uint()
	if n > uint64(limit) || n > uint64(len(r.rest)/max(least, 1)) {
		r.Fail("%d items announced, at most %d can follow", n, min(limit, len(r.rest)/max(least, 1)))
		return 0
	}
	return int(n)
}

// Name reads a text that many twins share.
func (r *Reader) Name() string { return r.names(r.text()) }

// Text reads a text of this twin alone.
func (r *Reader) Text() string { return string(r.text()) }

// Bytes reads a text as bytes of its own.
func (r *Reader) Bytes() []byte { return slices.Clone(r.text()) }

func (r *Reader) text() []byte {
	n := r.Uint()
	if n > uint64(len(r.rest)) {
		r.fail(errShort)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b[:n:n]
}
