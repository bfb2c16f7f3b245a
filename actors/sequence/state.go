package sequence

import "encoding/binary"

// AppendState appends everything that decides future behaviour, in a form that is equal exactly for
// equal states; item appends a held value.
func (s *Sequencer[T]) AppendState(b []byte, item func([]byte, T) []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, s.boot)
	b = le.AppendUint64(b, s.next)
	if s.rest == nil {
		b = (&spans{}).appendState(b)
		b = append(b, 0)
		return le.AppendUint64(b, 0)
	}
	r := s.rest
	b = r.missing.appendState(b)
	if r.prev == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = le.AppendUint64(b, r.prev.boot)
		b = le.AppendUint64(b, r.prev.next)
		b = r.prev.missing.appendState(b)
	}
	b = le.AppendUint64(b, uint64(len(r.held)))
	for i := range r.held {
		e := &r.held[i]
		b = le.AppendUint64(b, e.boot)
		b = le.AppendUint64(b, e.seq)
		b = le.AppendUint64(b, uint64(e.at))
		if e.refused {
			b = append(b, 1)
			continue
		}
		b = item(append(b, 0), e.v)
	}
	return b
}

func (s *spans) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, s.lo)
	b = le.AppendUint64(b, s.hi)
	b = le.AppendUint64(b, uint64(len(s.list)))
	for _, sp := range s.list {
		b = le.AppendUint64(b, sp.lo)
		b = le.AppendUint64(b, sp.hi)
		b = append(b, byte(sp.label))
	}
	return b
}
