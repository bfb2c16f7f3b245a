package codec

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Floor is a partition's statement in doppel.state (doppelv1.Floor): the newest checkpoints, if at or
// below StateOffset or of this Epoch, plus replay from Start, are complete. StateOffset and LogOffset may be -1.
type Floor struct {
	Epoch       uint64
	Start       Cursor
	StateOffset int64
	// State is the partition's own, taken at LogOffset.
	LogOffset int64
	State     PartitionState
	// EffectsNext: every effect below is acknowledged by its sink.
	EffectsNext int64
}

// PartitionState is what a partition remembers besides its twins.
type PartitionState struct {
	SrcNext     Position // all of doppel.ingest below it was handled
	RulesOffset int64
	Now         int64 // unix nanoseconds
	Unsettled   bool
	// Rules is the rule set in force at the floor's start, an encoded doppelv1.RulesInput; nil: the built-in
	// one. The record at RulesAt put it there.
	Rules   []byte
	RulesAt int64
}

// AppendFloor appends the record to dst: the bytes the generated code would write.
func AppendFloor(dst []byte, f *Floor) []byte {
	b := appendUint(dst, 1, f.Epoch)
	b = appendCursor(b, 2, f.Start)
	b = appendUint(b, 3, uint64(f.StateOffset))
	b = appendUint(b, 4, uint64(f.LogOffset))
	// Always there: a floor of zeros would be an empty value, which looks like a deletion.
	b, at := open(b, 5)
	s := &f.State
	b = appendUint(b, 1, s.SrcNext.Offset)
	b = appendUint(b, 2, uint64(s.SrcNext.Index))
	b = appendUint(b, 3, uint64(s.RulesOffset))
	b = appendFixed(b, 4, uint64(s.Now))
	b = appendBool(b, 5, s.Unsettled)
	b = appendBytes(b, 6, s.Rules)
	b = appendUint(b, 7, uint64(s.RulesAt))
	b = shut(b, at)
	return appendUint(b, 6, uint64(f.EffectsNext))
}

// DecodeFloor reads a floor. Fields it does not know are skipped. What is no floor is ErrUnreadable.
func DecodeFloor(value []byte) (Floor, error) {
	var f Floor
	found := false
	w := wire{b: value}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			f.Epoch = w.varint()
		case w.is(2, protowire.BytesType):
			f.Start.decode(&w)
		case w.is(3, protowire.VarintType):
			f.StateOffset = int64(w.varint())
		case w.is(4, protowire.VarintType):
			f.LogOffset = int64(w.varint())
		case w.is(5, protowire.BytesType):
			f.State.decode(&w)
			found = true
		case w.is(6, protowire.VarintType):
			f.EffectsNext = int64(w.varint())
		default:
			w.skip()
		}
	}
	if w.bad || !found {
		return Floor{}, fmt.Errorf("%w: not a floor", ErrUnreadable)
	}
	return f, nil
}

// decode reads the message that w stands at.
func (s *PartitionState) decode(outer *wire) {
	w := wire{b: outer.bytes()}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			s.SrcNext.Offset = w.varint()
		case w.is(2, protowire.VarintType):
			s.SrcNext.Index = uint32(w.varint())
		case w.is(3, protowire.VarintType):
			s.RulesOffset = int64(w.varint())
		case w.is(4, protowire.Fixed64Type):
			s.Now = int64(w.fixed64())
		case w.is(5, protowire.VarintType):
			s.Unsettled = w.varint() != 0
		case w.is(6, protowire.BytesType):
			s.Rules = slices.Clone(w.bytes())
		case w.is(7, protowire.VarintType):
			s.RulesAt = int64(w.varint())
		default:
			w.skip()
		}
	}
	if w.bad {
		outer.fail()
	}
}
