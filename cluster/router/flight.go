package router

import (
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

const (
	// flightMessages and flightBytes bound one request. The former is a power of two: requests are
	// numbered in steps of it, so that number plus index names a message among all those of a node.
	flightMessages = 512
	flightBytes    = 256 << 10
)

// stage is how far a message in a flight is.
type stage uint8

const (
	sent     stage = iota // nothing is known of it
	accepted              // in the mailbox of its owner
	settled               // it has its verdict, or went another way: whatever comes is late
)

// flight is one request: messages on their way to another node, from Deliver to their verdicts. Under
// the mutex of its peer, but that msgs may be read by who sends it.
type flight struct {
	id    uint64
	born  time.Time // begin of the Deliver that brought its first message
	at    time.Time // when it was sent; zero: not yet
	asked time.Time // when its verdicts were last asked for
	kept  bool      // in the queue, or msgs are being read without the mutex
	bytes int

	msgs   []host.Message
	parts  []int32
	stages []stage
	left   int // not settled
	unsaid int // not even accepted
}

func (f *flight) add(p int32, m *host.Message, size int) {
	f.msgs, f.parts, f.stages = append(f.msgs, *m), append(f.parts, p), append(f.stages, sent)
	f.bytes += size
	f.left++
	f.unsaid++
}

// hasRoom says that a message of that size fits.
func (f *flight) hasRoom(size int) bool {
	return len(f.msgs) < flightMessages && (len(f.msgs) == 0 || f.bytes+size <= flightBytes)
}

// advance takes message i to a later stage; false: it is there, or settled.
func (f *flight) advance(i int, to stage) bool {
	was := f.stages[i]
	if was >= to {
		return false
	}
	f.stages[i] = to
	if was == sent {
		f.unsaid--
	}
	if to == settled {
		f.left--
	}
	return true
}

// reset makes f like new.
func (f *flight) reset() {
	clear(f.msgs)
	*f = flight{msgs: f.msgs[:0], parts: f.parts[:0], stages: f.stages[:0]}
}

// appendTo appends the request that f is.
func (f *flight) appendTo(b []byte) []byte {
	b = codec.AppendDelivery(b, anyPartition, f.id)
	for i := range f.msgs {
		m := delivered(&f.msgs[i])
		b = codec.AppendDelivered(b, &m)
	}
	return b
}
