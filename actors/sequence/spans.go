package sequence

import "slices"

// label says why a number below the next one is open.
type label uint8

const (
	taken   label = iota // it is not open
	given                // given up on, and counted as missing
	absent               // never came and not counted: before the start, or skipped at the end of a boot
	refused              // its sample went to the dead letters; a corrected one may come
	unknown              // forgotten: whether it was taken cannot be said any more
)

// maxSpans bounds what is remembered of one boot.
const maxSpans = 64

// span is the open numbers lo <= n < hi.
type span struct {
	lo, hi uint64
	label  label
}

// spans are the open numbers of one boot, rising and disjoint.
//
// Beyond maxSpans the lowest are forgotten. From then on every number of [lo, hi) counts as open, for
// ever: late twice is better than lost (protocol rule P3). All spans still listed lie at or above hi.
type spans struct {
	list   []span
	lo, hi uint64
}

// open says whether a number below the next one is not known as taken.
func (s *spans) open(n uint64) bool {
	if n >= s.lo && n < s.hi {
		return true
	}
	_, ok := s.search(n)
	return ok
}

func (s *spans) search(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s.list, n, func(sp span, n uint64) int {
		switch {
		case sp.hi <= n:
			return -1
		case sp.lo > n:
			return 1
		default:
			return 0
		}
	})
}

// add opens lo <= n < hi, all at or above everything that was ever added.
func (s *spans) add(lo, hi uint64, l label) {
	if lo >= hi {
		return
	}
	if k := len(s.list); k > 0 && s.list[k-1].hi == lo && s.list[k-1].label == l {
		s.list[k-1].hi = hi
		return
	}
	s.list = append(s.list, span{lo: lo, hi: hi, label: l})
	s.forget()
}

// close relabels one number, taken removing it, and returns what it was.
func (s *spans) close(n uint64, as label) label {
	i, ok := s.search(n)
	if !ok {
		if n >= s.lo && n < s.hi {
			return unknown
		}
		return taken
	}
	sp := s.list[i]
	if sp.label == as {
		return as
	}
	parts := make([]span, 0, 3)
	if sp.lo < n {
		parts = append(parts, span{lo: sp.lo, hi: n, label: sp.label})
	}
	if as != taken {
		parts = append(parts, span{lo: n, hi: n + 1, label: as})
	}
	if n+1 < sp.hi {
		parts = append(parts, span{lo: n + 1, hi: sp.hi, label: sp.label})
	}
	s.list = slices.Replace(s.list, i, i+1, parts...)
	s.join(i + len(parts))
	s.join(i)
	s.forget()
	return sp.label
}

// join melts span i into the one before it where they touch and mean the same.
func (s *spans) join(i int) {
	if i <= 0 || i >= len(s.list) {
		return
	}
	if a, b := s.list[i-1], s.list[i]; a.hi == b.lo && a.label == b.label {
		s.list[i-1].hi = b.hi
		s.list = slices.Delete(s.list, i, i+1)
	}
}

func (s *spans) forget() {
	for len(s.list) > maxSpans {
		if s.hi == 0 {
			s.lo = s.list[0].lo
		}
		s.hi = s.list[0].hi
		s.list = slices.Delete(s.list, 0, 1)
	}
	if len(s.list) == 0 {
		s.list = nil
	}
}
