package codec

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/alert"
)

// FloorKey is the key of a partition's floor in doppel.state. It is no legal device id.
const FloorKey = "#floor"

// Cursor is a reader's position in a partition's log (doppelv1.Cursor): always the three together.
type Cursor struct {
	Next  int64  // next offset to read
	Epoch uint64 // epoch in force
	N     uint64 // last valid count in it
}

// Checkpoint is the state of one twin in doppel.state (doppelv1.Checkpoint); the record's key is its
// device.
type Checkpoint struct {
	// Epoch of its writer.
	Epoch uint64
	// Asof is the last offset of the log that is included, Cursor the one there.
	Asof   int64
	Cursor Cursor
	// Twin is what twin.EncodeCheckpoint gave, Version its twin.EncodingVersion.
	Version uint32
	Twin    []byte
	// Alerts are the open ones, and the resolved ones that were still listed.
	Alerts []alert.Alert
}

// AppendCheckpoint appends the record to dst: the bytes the generated code would write, without its
// allocations. The alerts in it carry no device; that is the record's key.
func AppendCheckpoint(dst []byte, c *Checkpoint) []byte {
	b := appendUint(dst, 1, c.Epoch)
	b = appendUint(b, 2, uint64(c.Asof))
	b = appendCursor(b, 3, c.Cursor)
	b = appendUint(b, 4, uint64(c.Version))
	b = appendBytes(b, 5, c.Twin)
	for i := range c.Alerts {
		b = appendAlert(b, 6, &c.Alerts[i])
	}
	return b
}

// CheckpointDecoder decodes records of doppel.state. The zero value is ready. Not for concurrent use.
type CheckpointDecoder struct {
	names  names
	alerts []alert.Alert
}

// Decode reads a checkpoint into c. Twin is valid no longer than value, Alerts until the next call;
// strings last. Fields it does not know are skipped. What is no checkpoint is ErrUnreadable.
func (d *CheckpointDecoder) Decode(value []byte, c *Checkpoint) error {
	if d.names == nil {
		d.names = make(names)
	}
	d.alerts = d.alerts[:0]
	*c = Checkpoint{}
	w := wire{b: value}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			c.Epoch = w.varint()
		case w.is(2, protowire.VarintType):
			c.Asof = int64(w.varint())
		case w.is(3, protowire.BytesType):
			c.Cursor.decode(&w)
		case w.is(4, protowire.VarintType):
			c.Version = uint32(w.varint())
		case w.is(5, protowire.BytesType):
			c.Twin = w.bytes()
		case w.is(6, protowire.BytesType):
			a, err := decodeAlert(w.bytes(), d.names)
			if err != nil {
				return fmt.Errorf("%w: checkpoint: %w", ErrUnreadable, err)
			}
			d.alerts = append(d.alerts, a)
		default:
			w.skip()
		}
	}
	if w.bad {
		return fmt.Errorf("%w: checkpoint: not a protobuf message", ErrUnreadable)
	}
	if c.Version == 0 || len(c.Twin) == 0 {
		return fmt.Errorf("%w: checkpoint: %d bytes of a twin in version %d", ErrUnreadable, len(c.Twin), c.Version)
	}
	if len(d.alerts) > 0 {
		c.Alerts = d.alerts
	}
	return nil
}

func appendCursor(b []byte, num protowire.Number, c Cursor) []byte {
	if c == (Cursor{}) {
		return b
	}
	b, at := open(b, num)
	b = appendUint(b, 1, uint64(c.Next))
	b = appendUint(b, 2, c.Epoch)
	b = appendUint(b, 3, c.N)
	return shut(b, at)
}

// decode reads the message that w stands at.
func (c *Cursor) decode(outer *wire) {
	w := wire{b: outer.bytes()}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			c.Next = int64(w.varint())
		case w.is(2, protowire.VarintType):
			c.Epoch = w.varint()
		case w.is(3, protowire.VarintType):
			c.N = w.varint()
		default:
			w.skip()
		}
	}
	if w.bad {
		outer.fail()
	}
}
