package codec

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/twin"
)

// fieldNumbers are those of seq, time, metrics and reported in Telemetry and in Sample.
type fieldNumbers struct{ seq, time, metrics, reported protowire.Number }

// protobuf decodes a doppel.v1.Telemetry.
func (d *Decoder) protobuf(payload []byte) *Refusal {
	w := wire{b: payload}
	d.begin(-1)
	d.merged = d.merged[:0]
	for w.next() {
		switch {
		case w.is(1, protowire.VarintType):
			if r := d.setBoot(unsigned(w.varint())); r != nil && !w.bad {
				return r
			}
		case w.is(6, protowire.BytesType):
			if r := d.protobufSample(w.bytes()); r != nil {
				return r
			}
		default:
			d.protobufField(&w, fieldNumbers{2, 3, 4, 5})
			if d.batch && d.draft.seen != 0 {
				return mixed(d.draft.seen)
			}
		}
	}
	if w.bad {
		return noTelemetry()
	}
	if !d.batch {
		d.protobufReported()
		d.end()
	}
	return nil
}

func noTelemetry() *Refusal {
	return refuse(twin.NotDecodable, "not a protobuf message doppel.v1.Telemetry")
}

func (d *Decoder) protobufSample(b []byte) *Refusal {
	if d.draft.seen != 0 {
		return mixed(d.draft.seen & -d.draft.seen)
	}
	if len(d.items) == MaxSamples {
		return refuse(twin.TooManySamples, "samples: more than %d in a message", MaxSamples)
	}
	d.batch = true
	w := wire{b: b}
	d.begin(len(d.items))
	d.merged = d.merged[:0]
	for w.next() {
		d.protobufField(&w, fieldNumbers{1, 2, 3, 4})
	}
	if w.bad {
		return noTelemetry()
	}
	d.protobufReported()
	d.end()
	d.begin(-1) // what stands beside the samples
	return nil
}

// protobufField reads a field of a sample. Of a field given again the last value holds, a Struct is
// merged: the rules of protobuf.
func (d *Decoder) protobufField(w *wire, at fieldNumbers) {
	switch {
	case w.is(at.seq, protowire.VarintType):
		d.draft.seen |= fieldSeq
		d.setSeq(unsigned(w.varint()))
	case w.is(at.time, protowire.VarintType):
		d.draft.seen |= fieldTime
		d.setTime(signed(int64(w.varint())))
	case w.is(at.metrics, protowire.BytesType):
		d.draft.seen |= fieldMetrics
		d.protobufMetric(w)
	case w.is(at.reported, protowire.BytesType):
		d.draft.seen |= fieldReported
		d.merged = append(d.merged, w.bytes()...)
	default:
		w.skip()
	}
}

// protobufMetric reads an entry of a map<string, double>; either part may be absent.
func (d *Decoder) protobufMetric(outer *wire) {
	w := wire{b: outer.bytes()}
	var name []byte
	var value float64
	for w.next() {
		switch {
		case w.is(1, protowire.BytesType):
			name = w.bytes()
		case w.is(2, protowire.Fixed64Type):
			value = math.Float64frombits(w.fixed64())
		default:
			w.skip()
		}
	}
	if w.bad {
		outer.fail()
		return
	}
	if s, ok := d.metric(name); ok {
		d.setReading(s, value, true)
	}
}

// protobufReported decodes the Struct, of which all parts are known now.
func (d *Decoder) protobufReported() {
	if d.draft.seen&fieldReported == 0 {
		return
	}
	reported, f := d.patch.fromStruct(d.merged)
	if f != nil {
		d.refuse(f.reason, "reported"+f.path, "%s", f.text)
		return
	}
	d.draft.reported = reported
}
