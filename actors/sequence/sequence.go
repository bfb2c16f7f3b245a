// Package sequence puts the numbered things of one sender back into the order of their numbers.
//
// A number is (boot, seq): seq counts from 1 within each boot, boots grow. A Sequencer knows which
// numbers were taken, which never came, and holds what came too early. It knows nothing of what it
// holds, of clocks or of limits: it never gives up on a number by itself (protocol rule P1), the
// caller does with Gap.
//
// PURE: no I/O, no clock. A Sequencer belongs to one goroutine.
package sequence

// Place is where a number stands to the order.
type Place uint8

// The places.
const (
	InOrder Place = iota + 1 // the next one: Accept it, then take what Next gives
	Ahead                    // numbers before it are missing: Hold it
	Behind                   // before the next one and not known as taken: Accept it as late
	Taken                    // known as taken or held: a duplicate
	Stale                    // of a boot before the previous one, or of one passed over
)

// Sequencer orders values of type T. The zero value has seen nothing.
//
// Invariant between calls, once Next has reported false: the lowest held number is neither the next
// one nor the first of a newer boot, so nothing held is applicable.
type Sequencer[T any] struct {
	boot uint64
	next uint64   // next number of boot in order; 0: no start yet
	rest *rest[T] // what an undisturbed sender of one boot never needs
}

type rest[T any] struct {
	missing spans // of boot, all below next
	prev    *past // the boot before, if one was seen
	held    []entry[T]
	oldest  int64 // smallest at of held
}

// past is what is remembered of the previous boot.
type past struct {
	boot, next uint64
	missing    spans
}

// Place says where a number stands. It changes nothing.
func (s *Sequencer[T]) Place(boot, seq uint64) Place {
	switch {
	case s.next != 0 && boot == s.boot:
		if seq == s.next {
			return InOrder
		}
		if seq < s.next {
			return s.rest.placeBelow(seq)
		}
	case s.next != 0 && boot < s.boot:
		return s.placePast(boot, seq)
	case seq == 1 && !s.holdsBefore(boot):
		return InOrder
	}
	if e := s.find(boot, seq); e != nil && !e.refused {
		return Taken
	}
	return Ahead
}

func (r *rest[T]) placeBelow(seq uint64) Place {
	if r != nil && r.missing.open(seq) {
		return Behind
	}
	return Taken
}

func (s *Sequencer[T]) placePast(boot, seq uint64) Place {
	p := s.past(boot)
	switch {
	case p == nil:
		return Stale
	case seq >= p.next || p.missing.open(seq):
		return Behind
	default:
		return Taken
	}
}

func (s *Sequencer[T]) past(boot uint64) *past {
	if s.rest == nil || s.rest.prev == nil || s.rest.prev.boot != boot {
		return nil
	}
	return s.rest.prev
}

// Accept takes a number that is InOrder or Behind. It reports whether the number had been given up
// on by a Gap that counted it.
func (s *Sequencer[T]) Accept(boot, seq uint64) (wasMissing bool) {
	if s.next != 0 && boot == s.boot && seq == s.next {
		s.next++
		return false
	}
	if s.next == 0 || boot > s.boot {
		s.turn(boot)
		s.next = seq + 1
		return false
	}
	return s.behind(boot, seq, taken) == given
}

// behind closes a number below the next one of its boot, or above what was taken of the previous
// boot, and says what it was.
func (s *Sequencer[T]) behind(boot, seq uint64, as label) label {
	if boot == s.boot {
		return s.rest.missing.close(seq, as)
	}
	p := s.past(boot)
	if seq < p.next {
		return p.missing.close(seq, as)
	}
	p.missing.add(p.next, seq, absent)
	p.next = seq + 1
	if as != taken {
		p.missing.add(seq, seq+1, as)
	}
	return absent
}

// Refuse gives a number's place to a value that was refused: the order runs on as if it had come,
// and the number stays open for a corrected one, which then stands Behind (or, while the refused
// one is ahead of the order, Ahead). A number taken, refused or forgotten before stays as it is. It
// reports whether the number had been given up on by a Gap that counted it.
func (s *Sequencer[T]) Refuse(boot, seq uint64, now int64) (wasMissing bool) {
	switch s.Place(boot, seq) {
	case InOrder:
		s.Accept(boot, seq)
		s.more().missing.add(seq, seq+1, refused)
	case Behind:
		return s.behind(boot, seq, refused) == given
	case Ahead:
		if s.find(boot, seq) == nil {
			s.insert(entry[T]{boot: boot, seq: seq, at: now, refused: true})
		}
	case Taken, Stale:
	}
	return false
}

// Next takes the next held value that has become in order, until it reports false. Call it after
// each Accept, Refuse and Gap.
func (s *Sequencer[T]) Next() (boot, seq uint64, v T, ok bool) {
	for s.rest != nil && len(s.rest.held) > 0 {
		e := s.rest.lowest()
		current := s.next != 0 && e.boot == s.boot
		if current && e.seq != s.next || !current && e.seq != 1 {
			break
		}
		got := s.rest.pop()
		s.Accept(got.boot, got.seq)
		if got.refused {
			s.rest.missing.add(got.seq, got.seq+1, refused)
			continue
		}
		return got.boot, got.seq, got.v, true
	}
	return 0, 0, v, false
}

// Gap gives up on the numbers of boot from the next expected one up to, not including, upTo, but no
// further than to the first that is held: take it with Next, then call Gap again until it reports
// false. On a sequencer without a start it sets the start, and nothing counts as missing. A boot is
// left for a newer one only when nothing of an older one is held.
func (s *Sequencer[T]) Gap(boot, upTo uint64) (missing uint64, ok bool) {
	if s.next != 0 && boot < s.boot || s.holdsBefore(boot) {
		return 0, false
	}
	if e := s.lowest(); e != nil && e.boot == boot {
		upTo = min(upTo, e.seq)
	}
	fresh := s.next == 0
	from := s.next
	if fresh || boot != s.boot {
		from = 1
	}
	if upTo <= from {
		return 0, false
	}
	if fresh || boot != s.boot {
		s.turn(boot)
	}
	s.next = upTo
	if fresh {
		s.more().missing.add(from, upTo, absent)
		return 0, true
	}
	s.more().missing.add(from, upTo, given)
	return upTo - from, true
}

// turn starts a boot; the one before it becomes the previous one.
func (s *Sequencer[T]) turn(boot uint64) {
	if s.next != 0 {
		r := s.more()
		r.prev = &past{boot: s.boot, next: s.next, missing: r.missing}
		r.missing = spans{}
	}
	s.boot, s.next = boot, 1
}

func (s *Sequencer[T]) more() *rest[T] {
	if s.rest == nil {
		s.rest = &rest[T]{}
	}
	return s.rest
}

// Boots returns the current boot and the previous one; known is how many of them there are.
func (s *Sequencer[T]) Boots() (current, previous uint64, known int) {
	switch {
	case s.next == 0:
		return 0, 0, 0
	case s.rest == nil || s.rest.prev == nil:
		return s.boot, 0, 1
	default:
		return s.boot, s.rest.prev.boot, 2
	}
}
