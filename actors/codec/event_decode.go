package codec

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// ErrUnreadable is wrapped by Decode when the bytes are no record of ours. Readers count such a
// record and skip it.
var ErrUnreadable = errors.New("unreadable record")

// EventDecoder decodes records of doppel.telemetry. The zero value is ready. Not for concurrent use.
type EventDecoder struct {
	names    names
	claim    Claim
	readings []twin.Reading
	scored   []twin.ScoredReading
	applied  []twin.AppliedSample
	alerts   []alert.Alert

	// Parts of the record, decoded once all of it is known.
	rawApplied [][]byte
	// Columns of the sample being decoded.
	columnNames        []string
	values, zs, scores []float64
}

// Decode reads a record into e. What e then refers to is valid until the next call and, where it is
// JSON or encoded rules, no longer than value; strings last. Fields it does not know are skipped,
// and a kind it does not know is not an error.
func (d *EventDecoder) Decode(value []byte, e *Event) error {
	if d.names == nil {
		d.names = make(names)
	}
	d.readings, d.scored = d.readings[:0], d.scored[:0]
	d.applied, d.alerts, d.rawApplied = d.applied[:0], d.alerts[:0], d.rawApplied[:0]
	*e = Event{}
	var receivedAt int64
	var content content
	w := wire{b: value}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			e.Kind = doppelv1.EventKind(w.varint())
		case w.is(2, protowire.VarintType):
			e.Epoch = w.varint()
		case w.is(3, protowire.VarintType):
			e.N = w.varint()
		case w.is(4, protowire.Fixed64Type):
			e.Now = int64(w.fixed64())
		case w.is(5, protowire.Fixed64Type):
			receivedAt = int64(w.fixed64())
		case w.is(6, protowire.BytesType):
			if !e.SrcNext.decode(w.bytes()) {
				w.fail()
			}
		case w.num >= 7 && w.num <= 17 && w.typ == protowire.BytesType:
			content.num, content.b, content.count = w.num, w.bytes(), content.count+1
		case w.is(20, protowire.VarintType):
			e.Effects.Outcome = outcomeFrom(w.varint())
		case w.is(21, protowire.BytesType):
			d.rawApplied = append(d.rawApplied, w.bytes())
		case w.is(22, protowire.Fixed64Type):
			e.Digest = w.fixed64()
		case w.is(23, protowire.Fixed64Type):
			e.SetDigest = w.fixed64()
		case w.is(24, protowire.VarintType):
			e.Version = w.varint()
		case w.is(25, protowire.BytesType):
			if err := d.transition(w.bytes()); err != nil {
				return err
			}
		case w.is(26, protowire.VarintType):
			e.Duplicates = uint32(w.varint())
		case w.is(27, protowire.VarintType):
			e.Effects.Tell = w.varint() != 0
		default:
			w.skip()
		}
	}
	if w.bad {
		return fmt.Errorf("%w: not a protobuf message", ErrUnreadable)
	}
	if receivedAt == 0 {
		receivedAt = e.Now
	}
	if err := d.content(e, content, receivedAt); err != nil {
		return err
	}
	if err := d.effects(e); err != nil {
		return err
	}
	return nil
}

// content is the input of a record, not decoded yet.
type content struct {
	num   protowire.Number
	b     []byte
	count int
}

// contentOf is the field of a kind's content, 0 for kinds without.
func contentOf(k doppelv1.EventKind) protowire.Number {
	switch k {
	case doppelv1.EventKind_EVENT_KIND_SAMPLE:
		return 7
	case doppelv1.EventKind_EVENT_KIND_REFUSED:
		return 8
	case doppelv1.EventKind_EVENT_KIND_GAP:
		return 9
	case doppelv1.EventKind_EVENT_KIND_STATUS:
		return 10
	case doppelv1.EventKind_EVENT_KIND_REPORTED:
		return 11
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		return 12
	case doppelv1.EventKind_EVENT_KIND_RULES:
		return 13
	case doppelv1.EventKind_EVENT_KIND_DESIRED:
		return 14
	case doppelv1.EventKind_EVENT_KIND_ANCHOR:
		return 15
	case doppelv1.EventKind_EVENT_KIND_QUARANTINED:
		return 16
	case doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED:
		return 17
	default:
		return 0
	}
}

// content decodes the input. A kind and its content must agree: foreign bytes that happen to be a
// protobuf message hardly ever do.
func (d *EventDecoder) content(e *Event, c content, receivedAt int64) error {
	if e.Kind <= 0 {
		return fmt.Errorf("%w: no kind", ErrUnreadable)
	}
	if _, known := doppelv1.EventKind_name[int32(e.Kind)]; known && (c.num != contentOf(e.Kind) || c.count > 1) {
		return fmt.Errorf("%w: %v with content of field %d", ErrUnreadable, e.Kind, c.num)
	}
	if e.Input.Kind = inputKind(e.Kind); e.Input.Kind != 0 {
		e.Input.ReceivedAt = receivedAt
	}
	w := wire{b: c.b}
	switch e.Kind {
	case doppelv1.EventKind_EVENT_KIND_SAMPLE:
		return d.sample(c.b, &e.Input)
	case doppelv1.EventKind_EVENT_KIND_REFUSED:
		d.refused(&w, &e.Input.Refused)
	case doppelv1.EventKind_EVENT_KIND_GAP:
		decodeGap(&w, &e.Input.Gap)
	case doppelv1.EventKind_EVENT_KIND_STATUS:
		decodeStatus(&w, &e.Input.Status)
	case doppelv1.EventKind_EVENT_KIND_REPORTED:
		decodeReported(&w, &e.Input.Reported)
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		d.decodeClaim(&w)
		e.Claim = &d.claim
	case doppelv1.EventKind_EVENT_KIND_RULES:
		e.Rules = c.b
	case doppelv1.EventKind_EVENT_KIND_DESIRED:
		d.desired(&w, &e.Input.Desired)
	case doppelv1.EventKind_EVENT_KIND_ANCHOR:
		e.Anchor = c.b
	case doppelv1.EventKind_EVENT_KIND_QUARANTINED:
		decodeQuarantine(&w, &e.Input.Quarantine)
	case doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED:
		decodeAcknowledgement(&w, &e.Input.Acknowledgement)
	default: // kinds without content
	}
	if w.bad {
		return fmt.Errorf("%w: content of %v", ErrUnreadable, e.Kind)
	}
	return nil
}

// effects decodes the applied samples; an own one takes its readings from the input.
func (d *EventDecoder) effects(e *Event) error {
	for _, raw := range d.rawApplied {
		if err := d.appliedSample(raw, e); err != nil {
			return err
		}
	}
	if len(d.applied) > 0 {
		e.Effects.Applied = d.applied
	}
	if len(d.alerts) > 0 {
		e.Effects.Transitions = d.alerts
	}
	return nil
}

func (d *EventDecoder) transition(b []byte) error {
	a, err := decodeAlert(b, d.names)
	if err != nil {
		return fmt.Errorf("%w: transition: %w", ErrUnreadable, err)
	}
	d.alerts = append(d.alerts, a)
	return nil
}

func (p *Position) decode(b []byte) bool {
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			p.Offset = w.varint()
		case w.is(2, protowire.VarintType):
			p.Index = uint32(w.varint())
		default:
			w.skip()
		}
	}
	return !w.bad
}

// resetColumns makes room for a sample.
func (d *EventDecoder) resetColumns() {
	d.columnNames = d.columnNames[:0]
	d.values, d.zs, d.scores = d.values[:0], d.zs[:0], d.scores[:0]
}
