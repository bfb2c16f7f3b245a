package sequence

import "slices"

// entry is a value that came too early, or the place of a refused one.
type entry[T any] struct {
	boot, seq uint64
	at        int64
	refused   bool
	v         T
}

// keepHeld is the capacity of the buffer that is kept once it is empty.
const keepHeld = 8

// Hold keeps a value whose number is Ahead. now is when its waiting begins. A value takes over the
// place of a refused one of the same number.
func (s *Sequencer[T]) Hold(boot, seq uint64, now int64, v T) {
	if e := s.find(boot, seq); e != nil {
		e.refused, e.v = false, v
		return
	}
	s.insert(entry[T]{boot: boot, seq: seq, at: now, v: v})
}

// Len is how many numbers wait, places of refused ones included.
func (s *Sequencer[T]) Len() int {
	if s.rest == nil {
		return 0
	}
	return len(s.rest.held)
}

// Oldest is when the longest waiting began; only meaningful while Len is not 0.
func (s *Sequencer[T]) Oldest() int64 {
	if s.rest == nil {
		return 0
	}
	return s.rest.oldest
}

// Lowest is the lowest number that waits: the bound of the next Gap.
func (s *Sequencer[T]) Lowest() (boot, seq uint64, ok bool) {
	e := s.lowest()
	if e == nil {
		return 0, 0, false
	}
	return e.boot, e.seq, true
}

func (s *Sequencer[T]) lowest() *entry[T] {
	if s.rest == nil || len(s.rest.held) == 0 {
		return nil
	}
	return s.rest.lowest()
}

// holdsBefore says whether anything of a boot before this one waits.
func (s *Sequencer[T]) holdsBefore(boot uint64) bool {
	e := s.lowest()
	return e != nil && e.boot < boot
}

// held is kept in falling order of number, so that taking the lowest moves nothing.
func (r *rest[T]) lowest() *entry[T] { return &r.held[len(r.held)-1] }

func (r *rest[T]) search(boot, seq uint64) (int, bool) {
	return slices.BinarySearchFunc(r.held, entry[T]{boot: boot, seq: seq}, func(a, b entry[T]) int {
		switch {
		case a.boot > b.boot || a.boot == b.boot && a.seq > b.seq:
			return -1
		case a.boot == b.boot && a.seq == b.seq:
			return 0
		default:
			return 1
		}
	})
}

func (s *Sequencer[T]) find(boot, seq uint64) *entry[T] {
	if s.rest == nil || len(s.rest.held) == 0 {
		return nil
	}
	if i, ok := s.rest.search(boot, seq); ok {
		return &s.rest.held[i]
	}
	return nil
}

func (s *Sequencer[T]) insert(e entry[T]) {
	r := s.more()
	if len(r.held) == 0 || e.at < r.oldest {
		r.oldest = e.at
	}
	i, _ := r.search(e.boot, e.seq)
	r.held = slices.Insert(r.held, i, e)
}

func (r *rest[T]) pop() entry[T] {
	last := len(r.held) - 1
	e := r.held[last]
	r.held[last] = entry[T]{}
	r.held = r.held[:last]
	switch {
	case last == 0 && cap(r.held) > keepHeld:
		r.held = nil
	case last > 0 && e.at == r.oldest:
		r.oldest = r.held[0].at
		for i := range r.held {
			r.oldest = min(r.oldest, r.held[i].at)
		}
	}
	return e
}
