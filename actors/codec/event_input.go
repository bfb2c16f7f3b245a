package codec

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// sample decodes a SampleInput.
func (d *EventDecoder) sample(b []byte, in *twin.Input) error {
	d.resetColumns()
	s := &in.Sample
	s.Time = in.ReceivedAt
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			s.Boot = w.varint()
		case w.is(2, protowire.VarintType):
			s.Seq, s.Numbered = w.varint(), true
		case w.is(3, protowire.Fixed64Type):
			s.Time, s.Timed = int64(w.fixed64()), true
		case w.is(4, protowire.BytesType):
			d.columnNames = append(d.columnNames, d.names.intern(w.bytes()))
		case w.isDoubles(5):
			d.values = w.doubles(d.values)
		case w.is(6, protowire.BytesType):
			s.Reported = w.bytes()
		default:
			w.skip()
		}
	}
	if w.bad || len(d.columnNames) != len(d.values) {
		return fmt.Errorf("%w: sample with %d names and %d values", ErrUnreadable, len(d.columnNames), len(d.values))
	}
	if !s.Numbered {
		s.Boot = 0
	}
	for i, name := range d.columnNames {
		d.readings = append(d.readings, twin.Reading{Name: name, Value: d.values[i]})
	}
	if len(d.readings) > 0 {
		s.Readings = d.readings
	}
	return nil
}

// appliedSample decodes an AppliedSample.
func (d *EventDecoder) appliedSample(b []byte, e *Event) error {
	d.resetColumns()
	var a twin.AppliedSample
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			a.Own = w.varint() != 0
		case w.is(2, protowire.VarintType):
			a.Boot = w.varint()
		case w.is(3, protowire.VarintType):
			a.Seq, a.Numbered = w.varint(), true
		case w.is(4, protowire.Fixed64Type):
			a.Time = int64(w.fixed64())
		case w.is(5, protowire.VarintType):
			a.Late = w.varint() != 0
		case w.is(6, protowire.VarintType):
			a.Count = w.varint()
		case w.is(7, protowire.BytesType):
			d.columnNames = append(d.columnNames, d.names.intern(w.bytes()))
		case w.isDoubles(8):
			d.values = w.doubles(d.values)
		case w.isDoubles(9):
			d.zs = w.doubles(d.zs)
		case w.isDoubles(10):
			d.scores = w.doubles(d.scores)
		case w.is(11, protowire.BytesType):
			a.Reported = w.bytes()
		default:
			w.skip()
		}
	}
	if w.bad {
		return fmt.Errorf("%w: applied sample", ErrUnreadable)
	}
	if !a.Numbered {
		a.Boot = 0
	}
	if a.Own {
		a.Reported = e.Input.Sample.Reported
		for _, r := range e.Input.Sample.Readings {
			d.columnNames, d.values = append(d.columnNames, r.Name), append(d.values, r.Value)
		}
	}
	return d.score(&a)
}

// score joins the columns to readings. Absent scores are those of a sample that has none.
func (d *EventDecoder) score(a *twin.AppliedSample) error {
	n := len(d.columnNames)
	if len(d.values) != n || len(d.zs) != n && len(d.zs) != 0 || len(d.scores) != n && len(d.scores) != 0 {
		return fmt.Errorf("%w: applied sample with %d names, %d values, %d z and %d scores",
			ErrUnreadable, n, len(d.values), len(d.zs), len(d.scores))
	}
	first := len(d.scored)
	for i, name := range d.columnNames {
		r := twin.ScoredReading{Name: name, Value: d.values[i], Z: math.NaN(), Score: math.NaN()}
		if len(d.zs) > 0 {
			r.Z = d.zs[i]
		}
		if len(d.scores) > 0 {
			r.Score = d.scores[i]
		}
		d.scored = append(d.scored, r)
	}
	if n > 0 {
		a.Readings = d.scored[first:len(d.scored):len(d.scored)]
	}
	d.applied = append(d.applied, *a)
	return nil
}

func (d *EventDecoder) refused(w *wire, r *twin.Refused) {
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			r.Boot = w.varint()
		case w.is(2, protowire.VarintType):
			r.Seq = w.varint()
		case w.is(3, protowire.BytesType):
			r.Reason = twin.Reason(d.names.intern(w.bytes()))
		case w.is(4, protowire.VarintType):
			r.Count = uint32(w.varint())
		case w.is(5, protowire.VarintType):
			r.Numbered = w.varint() != 0
		default:
			w.skip()
		}
	}
}

func decodeGap(w *wire, g *twin.Gap) {
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			g.Boot = w.varint()
		case w.is(2, protowire.VarintType):
			g.UpTo = w.varint()
		case w.is(3, protowire.VarintType):
			g.Forced = w.varint() != 0
		default:
			w.skip()
		}
	}
}

func decodeQuarantine(w *wire, q *twin.Quarantine) {
	for w.next() {
		if w.is(1, protowire.BytesType) {
			q.Reason = string(w.bytes())
		} else {
			w.skip()
		}
	}
}

func decodeAcknowledgement(w *wire, k *alert.Acknowledgement) {
	for w.next() {
		switch {
		case w.is(1, protowire.Fixed64Type):
			k.Alert = w.fixed64()
		case w.is(2, protowire.BytesType):
			k.By = string(w.bytes())
		case w.is(3, protowire.BytesType):
			k.Comment = string(w.bytes())
		default:
			w.skip()
		}
	}
}

func (d *EventDecoder) desired(w *wire, in *twin.Desired) {
	for w.next() {
		switch {
		case w.is(1, protowire.BytesType):
			in.Patch = w.bytes()
		case w.is(2, protowire.BytesType):
			w.tag(&in.Tags, d.names)
		case w.is(3, protowire.VarintType):
			in.ReplaceTags = w.varint() != 0
		case w.is(4, protowire.BytesType):
			in.RemovedTags = append(in.RemovedTags, string(w.bytes()))
		default:
			w.skip()
		}
	}
}

func decodeStatus(w *wire, s *twin.Status) {
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			s.Online = w.varint() != 0
		case w.is(2, protowire.VarintType):
			s.Boot, s.HasBoot = w.varint(), true
		case w.is(3, protowire.VarintType):
			s.Session, s.HasSession = w.varint(), true
		default:
			w.skip()
		}
	}
}

func decodeReported(w *wire, r *twin.Reported) {
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			r.Boot = w.varint()
		case w.is(2, protowire.VarintType):
			r.Seq, r.Numbered = w.varint(), true
		case w.is(3, protowire.BytesType):
			r.Patch = w.bytes()
		default:
			w.skip()
		}
	}
	if !r.Numbered {
		r.Boot = 0
	}
}

func (d *EventDecoder) decodeClaim(w *wire) {
	d.claim = Claim{}
	for w.next() {
		switch {
		case w.is(1, protowire.BytesType):
			d.claim.Node = d.names.intern(w.bytes())
		case w.is(2, protowire.VarintType):
			d.claim.Incarnation = w.varint()
		case w.is(3, protowire.Fixed64Type):
			d.claim.Nonce = w.fixed64()
		default:
			w.skip()
		}
	}
}
