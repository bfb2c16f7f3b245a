package fleet

// kind says what a message is to the accounts.
type kind uint8

const (
	sampleMessage kind = iota
	duplicateMessage
	poisonMessage
	wordMessage // reports and replies
)

// message is one PUBLISH: what it says, without its packet id.
type message struct {
	kind    kind
	device  *sender
	first   uint64 // number of its first sample
	samples int
	topic   []byte
	props   []byte
	payload []byte
}

// slot is a message in flight.
type slot struct {
	packet  []byte // the whole PUBLISH, kept to send it again
	kind    kind
	device  *sender
	first   uint64
	samples int
	sentAt  int64 // first written, unix nanoseconds
	acked   bool
}

// packetIDs is how many packet ids there are; 0 is not one.
const packetIDs = 65535

// window is the messages of one connection that wait for their PUBACK, in the order they were
// sent. Message number n has packet id n%65535+1, so that an id is found without a table.
//
// Slots in [head, tail) belong to whoever holds the connection's lock; the one at tail belongs to
// the writer until it calls push.
type window struct {
	slots      []slot
	head, tail uint64
}

func newWindow(size int) *window { return &window{slots: make([]slot, size)} }

func (w *window) at(n uint64) *slot { return &w.slots[n%uint64(len(w.slots))] }

// waiting is the number of messages in flight; those acknowledged out of turn still count.
func (w *window) waiting() int { return int(w.tail - w.head) }

// fill makes m the message number n, which must be free.
func (w *window) fill(n uint64, m *message) *slot {
	s := w.at(n)
	s.packet = appendPublish(s.packet[:0], m.topic, packetID(n), m.props, m.payload)
	s.kind, s.device, s.first, s.samples = m.kind, m.device, m.first, m.samples
	s.sentAt, s.acked = 0, false
	return s
}

// ack marks the message with a packet id; nil if none with it waits.
func (w *window) ack(id uint16) *slot {
	if id == 0 {
		return nil
	}
	n := w.head + (uint64(id)+packetIDs-uint64(packetID(w.head)))%packetIDs
	if n >= w.tail {
		return nil
	}
	s := w.at(n)
	if s.acked {
		return nil
	}
	s.acked = true
	for w.head < w.tail && w.at(w.head).acked {
		w.head++
	}
	return s
}

func packetID(n uint64) uint16 { return uint16(n%packetIDs) + 1 }
