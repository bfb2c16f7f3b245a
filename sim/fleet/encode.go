package fleet

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/sim/device"
)

// Format is how payloads are written.
type Format string

// The formats a device may send.
const (
	Protobuf Format = "protobuf"
	JSON     Format = "json"
	Msgpack  Format = "msgpack"
)

// ParseFormat checks the name of a format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Protobuf, JSON, Msgpack:
		return f, nil
	default:
		return "", fmt.Errorf("format %q: want protobuf, json or msgpack", s)
	}
}

// contentType is the Content Type property of the format.
func (f Format) contentType() string {
	switch f {
	case JSON:
		return "application/json"
	case Msgpack:
		return "application/msgpack"
	default:
		return "application/x-protobuf"
	}
}

// encoder writes payloads by hand: the generator shares the machine with the node it measures.
type encoder struct {
	format  Format
	scratch []byte
	entry   []byte
}

// append adds the payload of one sample, or of a batch of the same boot.
func (e *encoder) append(b []byte, samples []device.Sample) []byte {
	switch e.format {
	case JSON:
		return appendJSON(b, samples)
	case Msgpack:
		return appendMsgpack(b, samples)
	default:
		return e.appendProtobuf(b, samples)
	}
}

func appendJSON(b []byte, samples []device.Sample) []byte {
	b = append(b, `{"boot":`...)
	b = strconv.AppendUint(b, samples[0].Boot, 10)
	if len(samples) == 1 {
		b = append(b, ',')
		b = appendJSONSample(b, &samples[0])
		return append(b, '}')
	}
	b = append(b, `,"samples":[`...)
	for i := range samples {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		b = appendJSONSample(b, &samples[i])
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendJSONSample(b []byte, s *device.Sample) []byte {
	b = append(b, `"seq":`...)
	b = strconv.AppendUint(b, s.Seq, 10)
	b = append(b, `,"time":`...)
	b = strconv.AppendInt(b, s.Time, 10)
	b = append(b, `,"metrics":{`...)
	for i, r := range s.Readings {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, r.Name...)
		b = append(b, `":`...)
		b = strconv.AppendFloat(b, r.Value, 'g', -1, 64)
	}
	return append(b, '}')
}

// Field numbers of doppel.v1.Telemetry and Sample.
const (
	telemetryBoot, telemetrySeq, telemetryTime, telemetryMetrics, telemetrySamples = 1, 2, 3, 4, 6
	sampleSeq, sampleTime, sampleMetrics                                           = 1, 2, 3
)

func (e *encoder) appendProtobuf(b []byte, samples []device.Sample) []byte {
	b = protowire.AppendTag(b, telemetryBoot, protowire.VarintType)
	b = protowire.AppendVarint(b, samples[0].Boot)
	if len(samples) == 1 {
		return e.appendFields(b, &samples[0], telemetrySeq, telemetryTime, telemetryMetrics)
	}
	for i := range samples {
		e.scratch = e.appendFields(e.scratch[:0], &samples[i], sampleSeq, sampleTime, sampleMetrics)
		b = protowire.AppendTag(b, telemetrySamples, protowire.BytesType)
		b = protowire.AppendBytes(b, e.scratch)
	}
	return b
}

func (e *encoder) appendFields(b []byte, s *device.Sample, seq, at, metrics protowire.Number) []byte {
	b = protowire.AppendTag(b, seq, protowire.VarintType)
	b = protowire.AppendVarint(b, s.Seq)
	b = protowire.AppendTag(b, at, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(s.Time))
	for _, r := range s.Readings {
		entry := protowire.AppendTag(e.entry[:0], 1, protowire.BytesType)
		entry = protowire.AppendString(entry, r.Name)
		entry = protowire.AppendTag(entry, 2, protowire.Fixed64Type)
		entry = protowire.AppendFixed64(entry, math.Float64bits(r.Value))
		e.entry = entry
		b = protowire.AppendTag(b, metrics, protowire.BytesType)
		b = protowire.AppendBytes(b, entry)
	}
	return b
}

func appendMsgpack(b []byte, samples []device.Sample) []byte {
	if len(samples) == 1 {
		b = append(b, 0x84) // map of boot, seq, time, metrics
		b = msgpackUint(msgpackString(b, "boot"), samples[0].Boot)
		return appendMsgpackSample(b, &samples[0])
	}
	b = append(b, 0x82)
	b = msgpackUint(msgpackString(b, "boot"), samples[0].Boot)
	b = msgpackString(b, "samples")
	b = append(b, 0xdc)
	b = binary.BigEndian.AppendUint16(b, uint16(len(samples)))
	for i := range samples {
		b = append(b, 0x83)
		b = appendMsgpackSample(b, &samples[i])
	}
	return b
}

func appendMsgpackSample(b []byte, s *device.Sample) []byte {
	b = msgpackUint(msgpackString(b, "seq"), s.Seq)
	b = msgpackUint(msgpackString(b, "time"), uint64(s.Time))
	b = msgpackString(b, "metrics")
	b = append(b, 0xde)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Readings)))
	for _, r := range s.Readings {
		b = append(msgpackString(b, r.Name), 0xcb)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(r.Value))
	}
	return b
}

func msgpackString(b []byte, s string) []byte {
	b = append(b, 0xd9, byte(len(s)))
	return append(b, s...)
}

func msgpackUint(b []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
}
