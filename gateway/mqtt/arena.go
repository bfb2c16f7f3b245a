package mqtt

// slabSize is a compromise: large enough that a slab serves about 2,000 ordinary messages, small
// enough that one message held back for long pins little.
const slabSize = 256 << 10

// arena copies bytes out of a read buffer without an allocation for each message. It never reuses a
// slab: the garbage collector frees it when the last message in it is gone. Not for concurrent use.
type arena struct{ free []byte }

// copy returns a copy of b that nothing else will write to.
func (a *arena) copy(b []byte) []byte {
	if len(b) > slabSize/8 { // would waste the rest of a slab
		return append([]byte(nil), b...)
	}
	if len(b) > len(a.free) {
		a.free = make([]byte, slabSize)
	}
	c := a.free[:len(b):len(b)]
	a.free = a.free[len(b):]
	copy(c, b)
	return c
}
