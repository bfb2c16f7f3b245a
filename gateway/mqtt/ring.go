package mqtt

import (
	"math/rand/v2"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// Waits before a message is delivered to the inlet again: doubled each time, with jitter.
const (
	retryFloor  = 5 * time.Millisecond
	retryDouble = 8 // at most 1.28 s
)

// retryBatch bounds how many messages are delivered again at once.
const retryBatch = 256

// slotState is where a held message is.
type slotState uint8

const (
	delivered slotState = iota // with the inlet or the refuser, verdict to come
	waiting                    // to be delivered again when due
	done                       // to be acknowledged once all before it are
)

// slot is one message from its arrival to its acknowledgement.
type slot struct {
	msg    host.Message
	letter *host.DeadLetter // refused by the door itself: msg holds only token and time
	due    int64            // waiting: unix nanoseconds
	id     uint16           // packet identifier; 0: QoS 0, nothing to acknowledge
	qos    byte
	code   byte // reason code of the acknowledgement
	state  slotState
	tries  uint8
}

// slotOverhead is about what a held message takes besides its device and payload.
const slotOverhead = 512

// weight is about what the slot keeps in memory.
func (s *slot) weight() int {
	w := slotOverhead + len(s.msg.Device) + len(s.msg.Payload)
	if s.letter != nil {
		w += len(s.letter.Payload)
	}
	return w
}

// again puts the slot back to be delivered once more.
func (s *slot) again(now time.Time) {
	s.state = waiting
	wait := retryFloor << min(s.tries, retryDouble)
	s.tries = min(s.tries, 254) + 1
	s.due = now.Add(wait/2 + rand.N(wait)).UnixNano()
}

// ring holds slots in order of arrival. Sequence numbers count arrivals and wrap around; at most
// 2^31 slots are held. Not for concurrent use.
type ring struct {
	slots      []slot // len is zero or a power of two
	head, tail uint32 // first held, next free
	bytes      int    // weight of those held that were weighed
}

func (r *ring) len() int { return int(r.tail - r.head) }

// push appends a slot and returns its sequence number.
func (r *ring) push() (*slot, uint32) {
	if r.len() == len(r.slots) {
		r.grow()
	}
	seq := r.tail
	r.tail++
	return &r.slots[seq&uint32(len(r.slots)-1)], seq
}

// weighed counts a slot just filled, and returns what it weighs.
func (r *ring) weighed(s *slot) int {
	w := s.weight()
	r.bytes += w
	return w
}

func (r *ring) grow() {
	slots := make([]slot, max(4, 2*len(r.slots)))
	for seq := r.head; seq != r.tail; seq++ {
		slots[seq&uint32(len(slots)-1)] = r.slots[seq&uint32(len(r.slots)-1)]
	}
	r.slots = slots
}

// at returns a held slot, nil if seq is not held.
func (r *ring) at(seq uint32) *slot {
	if seq-r.head >= r.tail-r.head {
		return nil
	}
	return &r.slots[seq&uint32(len(r.slots)-1)]
}

// pop frees the first slot and returns what it weighed.
func (r *ring) pop() int {
	s := r.at(r.head)
	w := s.weight()
	r.bytes -= w
	*s = slot{} // lets go of device and payload
	r.head++
	return w
}

// first returns the first slot if its turn to be acknowledged has come.
func (r *ring) first() *slot {
	if s := r.at(r.head); s != nil && s.state == done {
		return s
	}
	return nil
}

// clear frees all slots and counts from zero again.
func (r *ring) clear() {
	clear(r.slots)
	r.head, r.tail, r.bytes = 0, 0, 0
}

// takeDue moves waiting slots whose time has come to delivered and appends their messages and
// letters. next is when the earliest of the others is due, zero if none waits.
func (r *ring) takeDue(now int64, msgs []host.Message, letters []refusal) (_ []host.Message, _ []refusal, next int64) {
	for seq := r.head; seq != r.tail; seq++ {
		s := r.at(seq)
		if s.state != waiting {
			continue
		}
		if s.due > now || len(msgs)+len(letters) >= retryBatch {
			if next == 0 || s.due < next {
				next = s.due
			}
			continue
		}
		s.state = delivered
		if s.letter != nil {
			letters = append(letters, refusal{letter: s.letter, token: s.msg.Token})
		} else {
			msgs = append(msgs, s.msg)
		}
	}
	return msgs, letters, next
}

// refusal is a dead letter on its way to the refuser.
type refusal struct {
	letter *host.DeadLetter
	token  uint64
}
