package router

import (
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
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

// letter is a request that is filled again and again.
type letter struct {
	request  doppelv1.DeliverRequest
	messages []*doppelv1.DeviceMessage
	devices  []byte // one behind the other
}

// of makes the letter that of f.
func (l *letter) of(f *flight) *doppelv1.DeliverRequest {
	for len(l.messages) < len(f.msgs) {
		l.messages = append(l.messages, new(doppelv1.DeviceMessage))
	}
	l.devices = l.devices[:0]
	for i := range f.msgs {
		l.devices = append(l.devices, f.msgs[i].Device...)
	}
	devices := string(l.devices) // one allocation for all
	for i := range f.msgs {
		n := len(f.msgs[i].Device)
		fill(l.messages[i], &f.msgs[i], devices[:n])
		devices = devices[n:]
	}
	l.request.Partition, l.request.Id, l.request.Messages = anyPartition, f.id, l.messages[:len(f.msgs)]
	return &l.request
}

// empty lets go of what the letter shares.
func (l *letter) empty(n int) {
	for _, m := range l.messages[:n] {
		m.Payload, m.Device = nil, ""
	}
}
