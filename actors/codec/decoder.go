package codec

import (
	"strings"

	"github.com/doppel-iot/doppel/actors/twin"
)

// Item is one sample of a message, or why that sample cannot be taken (then Sample is empty).
type Item struct {
	Sample  twin.Sample
	Refusal *Refusal
}

// Decoder decodes what devices send. Make it with NewDecoder. Not for concurrent use; what a call
// returns is valid until the next call, metric names for ever.
type Decoder struct {
	names  names
	ranges map[string]Range // by metric; nil: none

	// The message being decoded.
	receivedAt int64
	boot       uint64
	hasBoot    bool
	batch      bool // it has `samples`
	draft      draft
	items      []Item
	readings   []twin.Reading // backing array of items[i].Sample.Readings

	scan   scanner
	pack   reader
	patch  patch
	merged []byte // protobuf Struct in parts
}

// NewDecoder makes a Decoder.
func NewDecoder() *Decoder {
	return &Decoder{names: make(names)}
}

// Name is a lasting string of a metric's or rule's name, the same one each time.
func (d *Decoder) Name(b []byte) string { return d.names.intern(b) }

type format uint8

const (
	formatJSON format = iota + 1
	formatProtobuf
	formatMessagePack
)

// supported names the content types in details.
const supported = "application/json, application/x-protobuf and application/msgpack are taken"

// Telemetry decodes a message of the telemetry topic. contentType is as the device gave it, empty if
// it gave none; receivedAt (unix nanoseconds) stands for absent times and bounds the future. A
// Refusal says that nothing of the message can be taken.
func (d *Decoder) Telemetry(contentType string, payload []byte, receivedAt int64) ([]Item, *Refusal) {
	if r := checkSize(payload); r != nil {
		return nil, r
	}
	f, ok := formatOf(contentType, payload)
	if !ok {
		return nil, refuse(twin.ContentType, "content type %.100q is not known; %s", contentType, supported)
	}
	d.reset(receivedAt)
	var r *Refusal
	switch f {
	case formatJSON:
		r = d.json(payload)
	case formatMessagePack:
		r = d.msgpack(payload)
	case formatProtobuf:
		r = d.protobuf(payload)
	}
	if r == nil {
		r = d.finish()
	}
	if r != nil {
		if contentType == "" && f != formatJSON && r.Reason == twin.NotDecodable {
			r.Detail += " (no content type was given, and the first byte is not {)"
		}
		return nil, r
	}
	return d.items, nil
}

func checkSize(payload []byte) *Refusal {
	if len(payload) == 0 {
		return refuse(twin.NoContent, "the payload is empty")
	}
	if len(payload) > MaxMessage {
		return refuse(twin.TooLarge, "the message has %d bytes, at most %d are taken", len(payload), MaxMessage)
	}
	return nil
}

// formatOf goes by the content type, without it by the first byte of payload, which is not empty.
func formatOf(contentType string, payload []byte) (format, bool) {
	if contentType == "" {
		switch c := payload[0]; {
		case c == '{':
			return formatJSON, true
		case c >= 0x80 && c <= 0x8f, c == 0xde, c == 0xdf:
			return formatMessagePack, true
		}
		return formatProtobuf, true
	}
	for i := range contentTypes { // as written here by nearly everyone
		if contentType == contentTypes[i].name {
			return contentTypes[i].format, true
		}
	}
	name, _, _ := strings.Cut(contentType, ";")
	name = strings.TrimSpace(name)
	for _, t := range contentTypes {
		if strings.EqualFold(name, t.name) {
			return t.format, true
		}
	}
	return 0, false
}

var contentTypes = [...]struct {
	name   string
	format format
}{
	{"application/json", formatJSON},
	{"application/x-protobuf", formatProtobuf},
	{"application/msgpack", formatMessagePack},
	{"application/protobuf", formatProtobuf},
	{"application/x-msgpack", formatMessagePack},
	{"application/vnd.msgpack", formatMessagePack},
}

func (d *Decoder) reset(receivedAt int64) {
	d.receivedAt = receivedAt
	d.boot, d.hasBoot, d.batch = 0, false, false
	d.items = d.items[:0]
	d.readings = d.readings[:0]
	d.patch.reset()
}

func validMetric(name []byte) bool {
	if len(name) == 0 || len(name) > 64 {
		return false
	}
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return true
}
