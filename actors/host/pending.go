package host

// pending is what waits for the release of record n (O6): an acknowledgement to a door, effects,
// the answer of a query. Entries are in the order of n; several may wait for the same record.
type pending struct {
	n     uint64
	reply Reply // with token; nil: nobody to acknowledge
	token uint64
	parts *parts // instead of reply, for a message that is released in parts

	cell    *cell // twin that the record changed; nil: no record, only waiting
	version uint64
	counts  Counts       // samples this record settles
	effects []Transition // alert transitions of the record
	since   int64        // when what caused them was received, unix nanoseconds
	tell    bool         // the device has to be told message
	message []byte       // nil: forget it all
	fn      func()       // query waiting to answer
}

// parts joins the completions of a message whose samples end in different places: some in the
// log, some among the dead letters. The door gets one verdict when the last one is durable.
type parts struct {
	reply   Reply
	token   uint64
	left    int
	verdict Verdict
}

// ring is a queue of values in one growing array.
type ring[T any] struct {
	buf  []T // length is a power of two
	head uint64
	tail uint64
}

func (r *ring[T]) len() int { return int(r.tail - r.head) }

// push returns the new element; it may move the others.
func (r *ring[T]) push() *T {
	if r.len() == len(r.buf) {
		grown := make([]T, max(64, 2*len(r.buf)))
		for i := r.head; i != r.tail; i++ {
			grown[i&uint64(len(grown)-1)] = r.buf[i&uint64(len(r.buf)-1)]
		}
		r.buf = grown
	}
	v := &r.buf[r.tail&uint64(len(r.buf)-1)]
	r.tail++
	return v
}

// at is the element of an absolute place, as tail was when it was pushed.
func (r *ring[T]) at(place uint64) *T { return &r.buf[place&uint64(len(r.buf)-1)] }

func (r *ring[T]) front() *T { return &r.buf[r.head&uint64(len(r.buf)-1)] }

// back is the newest element.
func (r *ring[T]) back() *T { return r.at(r.tail - 1) }

func (r *ring[T]) pop() {
	var zero T
	*r.front() = zero
	r.head++
}
