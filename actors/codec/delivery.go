package codec

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// DeliveryType is the full name of the message that AppendDelivery begins.
const DeliveryType = "doppel.v1.DeliverRequest"

var errDelivery = errors.New("not a " + DeliveryType)

// Delivered is a doppel.v1.DeviceMessage: what a device sent, on its way to another node.
type Delivered struct {
	Kind               doppelv1.DeviceMessageKind
	Attempts           uint32
	Numbered           bool // Boot and Seq are there
	Device, Payload    []byte
	ContentType, Topic string
	ReceivedAt         int64 // nanoseconds since 1970
	Boot, Seq          uint64
}

// AppendDelivery begins a doppel.v1.DeliverRequest; its messages follow by AppendDelivered.
func AppendDelivery(b []byte, partition int32, id uint64) []byte {
	return appendUint(appendUint(b, 1, uint64(int64(partition))), 2, id)
}

// AppendDelivered adds a message to a request.
func AppendDelivered(b []byte, m *Delivered) []byte {
	b, at := open(b, 3)
	b = appendUint(b, 1, uint64(m.Kind))
	b = appendBytes(b, 2, m.Device)
	b = appendBytes(b, 3, m.Payload)
	b = appendText(b, 4, m.ContentType)
	b = appendFixed(b, 5, uint64(m.ReceivedAt))
	b = appendOptional(b, 6, m.Boot, m.Numbered)
	b = appendOptional(b, 7, m.Seq, m.Numbered)
	b = appendText(b, 8, m.Topic)
	b = appendUint(b, 9, uint64(m.Attempts))
	return shut(b, at)
}

// DeliveryReader reads requests. It keeps the strings that messages have in common. Not for concurrent use.
type DeliveryReader struct{ contentType, topic string }

// Read calls fn for each message of a doppel.v1.DeliverRequest and returns the request's id. The message is fn's
// until it returns; its slices share the memory of b.
func (r *DeliveryReader) Read(b []byte, fn func(*Delivered)) (id uint64, err error) {
	var m Delivered
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(2, protowire.VarintType):
			id = w.varint()
		case w.is(3, protowire.BytesType):
			m = Delivered{}
			if !r.message(w.bytes(), &m) {
				w.fail()
			}
			if !w.bad {
				fn(&m)
			}
		default:
			w.skip()
		}
	}
	if w.bad {
		return 0, errDelivery
	}
	return id, nil
}

func (r *DeliveryReader) message(b []byte, m *Delivered) bool {
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			m.Kind = doppelv1.DeviceMessageKind(w.varint())
		case w.is(2, protowire.BytesType):
			m.Device = w.bytes()
		case w.is(3, protowire.BytesType):
			m.Payload = w.bytes()
		case w.is(4, protowire.BytesType):
			m.ContentType = keep(&r.contentType, w.bytes())
		case w.is(5, protowire.Fixed64Type):
			m.ReceivedAt = int64(w.fixed64())
		case w.is(6, protowire.VarintType):
			m.Boot = w.varint()
		case w.is(7, protowire.VarintType):
			m.Seq, m.Numbered = w.varint(), true
		case w.is(8, protowire.BytesType):
			m.Topic = keep(&r.topic, w.bytes())
		case w.is(9, protowire.VarintType):
			m.Attempts = uint32(w.varint())
		default:
			w.skip()
		}
	}
	return !w.bad
}

// keep is b as a string: the last one again, if it is the same.
func keep(last *string, b []byte) string {
	if *last != string(b) {
		*last = strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return *last
}
