package sequence

import (
	"encoding/binary"
	"math"

	"github.com/doppel-iot/doppel/actors/state"
)

// What a sequencer's encoding holds besides boot and next.
const (
	hasMissing = 1 << iota
	hasPast
	hasHeld
)

// maxNext is the largest number that can be expected next.
const maxNext = math.MaxInt64 + 1

// Expected is the number that is next in order; next is 0 before the start.
func (s *Sequencer[T]) Expected() (boot, next uint64) { return s.boot, s.next }

// Encode appends the sequencer for Decode; item appends a held value.
func (s *Sequencer[T]) Encode(b []byte, item func([]byte, T) []byte) []byte {
	b = binary.AppendUvarint(b, s.boot)
	b = binary.AppendUvarint(b, s.next)
	r := s.rest
	if r == nil {
		return append(b, 0)
	}
	var has byte
	if !r.missing.empty() {
		has |= hasMissing
	}
	if r.prev != nil {
		has |= hasPast
	}
	if len(r.held) > 0 {
		has |= hasHeld
	}
	b = append(b, has)
	if has&hasMissing != 0 {
		b = r.missing.encode(b)
	}
	if p := r.prev; p != nil {
		b = binary.AppendUvarint(b, p.boot)
		b = binary.AppendUvarint(b, p.next)
		b = p.missing.encode(b)
	}
	if has&hasHeld != 0 {
		b = r.encodeHeld(b, item)
	}
	return b
}

func (r *rest[T]) encodeHeld(b []byte, item func([]byte, T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.held)))
	at := int64(0)
	for i := range r.held {
		e := &r.held[i]
		b = binary.AppendUvarint(b, e.boot)
		b = binary.AppendVarint(b, e.at-at)
		at = e.at
		if e.refused {
			b = binary.AppendUvarint(b, e.seq<<1|1)
			continue
		}
		b = item(binary.AppendUvarint(b, e.seq<<1), e.v)
	}
	return b
}

// Decode makes s what was encoded; item reads a held value. What no sequencer can be is a failure of
// the reader, and s is then good for nothing.
func (s *Sequencer[T]) Decode(in *state.Reader, item func(in *state.Reader, boot, seq uint64) T) {
	*s = Sequencer[T]{boot: in.Uint(), next: in.Uint()}
	has := in.Byte()
	if has > hasMissing|hasPast|hasHeld || s.next > maxNext || s.next == 0 && (s.boot != 0 || has&(hasMissing|hasPast) != 0) {
		in.Fail("sequencer at %d/%d with %#x", s.boot, s.next, has)
		return
	}
	if has == 0 {
		return
	}
	r := s.more()
	if has&hasMissing != 0 {
		r.missing.decode(in, s.next)
	}
	if has&hasPast != 0 {
		r.prev = &past{boot: in.Uint(), next: in.Uint()}
		if r.prev.boot >= s.boot || r.prev.next > maxNext {
			in.Fail("previous boot %d, next %d, of boot %d", r.prev.boot, r.prev.next, s.boot)
			return
		}
		r.prev.missing.decode(in, r.prev.next)
	}
	if has&hasHeld != 0 {
		s.decodeHeld(in, item)
	}
}

func (s *Sequencer[T]) decodeHeld(in *state.Reader, item func(in *state.Reader, boot, seq uint64) T) {
	r := s.rest
	n := in.Count(3, math.MaxInt)
	// Grown as they come: a value may take far more room than its bytes.
	at := int64(0)
	for i := range n {
		e := entry[T]{boot: in.Uint()}
		at += in.Int()
		seq := in.Uint()
		e.at, e.seq, e.refused = at, seq>>1, seq&1 != 0
		if i > 0 && !r.held[i-1].behind(e.boot, e.seq) || e.seq == 0 {
			in.Fail("held %d/%d out of order", e.boot, e.seq)
		}
		if !e.refused {
			e.v = item(in, e.boot, e.seq)
		}
		if in.Err() != nil {
			return
		}
		if i == 0 || at < r.oldest {
			r.oldest = at
		}
		r.held = append(r.held, e)
	}
	// Nothing held may be applicable.
	low := s.lowest()
	if low == nil || s.next != 0 && low.boot < s.boot ||
		s.next != 0 && low.boot == s.boot && low.seq <= s.next ||
		(s.next == 0 || low.boot > s.boot) && low.seq == 1 {
		in.Fail("what is held does not wait")
	}
}

// behind says whether the number of e is behind boot and seq.
func (e *entry[T]) behind(boot, seq uint64) bool {
	return e.boot > boot || e.boot == boot && e.seq > seq
}

func (s *spans) empty() bool { return len(s.list) == 0 && s.hi == 0 }

func (s *spans) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, s.hi)
	if s.hi != 0 {
		b = binary.AppendUvarint(b, s.lo)
	}
	b = binary.AppendUvarint(b, uint64(len(s.list)))
	end := s.hi
	for _, sp := range s.list {
		b = binary.AppendUvarint(b, sp.lo-end)
		b = binary.AppendUvarint(b, sp.hi-sp.lo)
		b = append(b, byte(sp.label))
		end = sp.hi
	}
	return b
}

// decode reads spans that lie below next.
func (s *spans) decode(in *state.Reader, next uint64) {
	*s = spans{hi: in.Uint()}
	if s.hi != 0 {
		s.lo = in.Uint()
	}
	n := in.Count(3, maxSpans)
	if s.lo > s.hi || s.hi > next {
		in.Fail("forgotten numbers from %d to %d", s.lo, s.hi)
	}
	if n == 0 || in.Err() != nil {
		return
	}
	s.list = make([]span, n)
	end := s.hi
	for i := range s.list {
		gap, size, l := in.Uint(), in.Uint(), label(in.Byte())
		if gap > next-end || size == 0 || size > next-end-gap || l == taken || l > refused {
			in.Fail("open numbers: %d after %d, %d of them, label %d", gap, end, size, l)
			return
		}
		sp := span{lo: end + gap, label: l}
		sp.hi = sp.lo + size
		s.list[i], end = sp, sp.hi
	}
}

// Each calls fn with every value that is held.
func (s *Sequencer[T]) Each(fn func(T)) {
	if s.rest == nil {
		return
	}
	for i := range s.rest.held {
		if e := &s.rest.held[i]; !e.refused {
			fn(e.v)
		}
	}
}
