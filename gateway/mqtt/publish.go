package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Control packet types in the high half of the first byte [MQTT 5 section 2.1.2].
const (
	typePublish  = 0x30
	typePuback   = 0x40
	typePubrec   = 0x50
	typePingresp = 0xD0
	typeMask     = 0xF0
)

// Property identifiers a PUBLISH may carry [MQTT 5 section 3.3.2.3].
const (
	propPayloadFormat  = 0x01
	propMessageExpiry  = 0x02
	propContentType    = 0x03
	propResponseTopic  = 0x08
	propCorrelation    = 0x09
	propSubscriptionID = 0x0B
	propTopicAlias     = 0x23
	propUser           = 0x26
)

var (
	errMalformed  = errors.New("malformed packet")
	errTopicAlias = errors.New("topic alias, though none was allowed")
)

// publish is an MQTT 5 PUBLISH. Its slices point into the packet it was decoded from.
type publish struct {
	topic, payload []byte
	contentType    []byte // absent: nil
	boot, seq      []byte // values of the user properties of that name; absent: nil
	id             uint16 // 0 for QoS 0
	qos            byte
	retain, dup    bool
}

// decode reads a PUBLISH whose first byte is first and whose remaining length is len(b).
func (p *publish) decode(first byte, b []byte) error {
	*p = publish{qos: first >> 1 & 3, retain: first&1 != 0, dup: first&8 != 0}
	var ok bool
	if p.topic, b, ok = cutBytes(b); !ok || p.qos == 3 {
		return errMalformed
	}
	if p.qos > 0 {
		if len(b) < 2 {
			return errMalformed
		}
		if p.id = binary.BigEndian.Uint16(b); p.id == 0 {
			return errMalformed
		}
		b = b[2:]
	}
	n, b, ok := cutVarint(b)
	if !ok || n > len(b) {
		return errMalformed
	}
	p.payload = b[n:]
	if n > 0 {
		if err := p.properties(b[:n]); err != nil {
			return err
		}
	}
	if len(p.topic) == 0 { // stands for an alias, and there is none
		return errTopicAlias
	}
	return nil
}

func (p *publish) properties(b []byte) error {
	var ok bool
	for len(b) > 0 {
		id := b[0]
		b = b[1:]
		switch id {
		case propUser:
			var key, value []byte
			if key, b, ok = cutBytes(b); !ok {
				return errMalformed
			}
			if value, b, ok = cutBytes(b); !ok {
				return errMalformed
			}
			switch string(key) {
			case "boot":
				p.boot = value
			case "seq":
				p.seq = value
			}
			continue
		case propContentType:
			p.contentType, b, ok = cutBytes(b)
		case propResponseTopic, propCorrelation:
			_, b, ok = cutBytes(b)
		case propPayloadFormat:
			b, ok = skip(b, 1)
		case propMessageExpiry:
			b, ok = skip(b, 4)
		case propSubscriptionID:
			_, b, ok = cutVarint(b)
		case propTopicAlias:
			return errTopicAlias
		default:
			return errMalformed
		}
		if !ok {
			return errMalformed
		}
	}
	return nil
}

// cutBytes takes a two-byte length and that many bytes off the front of b.
func cutBytes(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if 2+n > len(b) {
		return nil, nil, false
	}
	return b[2 : 2+n : 2+n], b[2+n:], true
}

// cutVarint takes a variable byte integer (at most four bytes) off the front of b.
func cutVarint(b []byte) (v int, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 4; i++ {
		v |= int(b[i]&0x7F) << (7 * i)
		if b[i] < 0x80 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}

func skip(b []byte, n int) ([]byte, bool) {
	if len(b) < n {
		return nil, false
	}
	return b[n:], true
}

// patchNumber reads the own numbering of a reported patch. Without seq it is unnumbered, seq without
// boot is boot 0, as for samples. The error is the detail of a dead letter.
func patchNumber(bootText, seqText []byte) (boot, seq uint64, numbered bool, err error) {
	if seqText == nil {
		return 0, 0, false, nil
	}
	if seq, err = number("seq", seqText); err != nil {
		return 0, 0, false, err
	}
	if seq == 0 {
		return 0, 0, false, errors.New("user property seq: 0, numbers start at 1")
	}
	if bootText != nil {
		if boot, err = number("boot", bootText); err != nil {
			return 0, 0, false, err
		}
	}
	return boot, seq, true, nil
}

func number(name string, text []byte) (uint64, error) {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n > math.MaxInt64 {
		if len(text) > 32 {
			text = text[:32]
		}
		return 0, fmt.Errorf("user property %s: %q is no integer from 0 to 2^63-1", name, text)
	}
	return n, nil
}

// contentType is the media type without parameters. The usual ones cost no allocation.
func contentType(b []byte) string {
	switch string(b) {
	case "":
		return ""
	case "application/json":
		return "application/json"
	case "application/x-protobuf":
		return "application/x-protobuf"
	case "application/msgpack":
		return "application/msgpack"
	}
	return mediaType(string(b))
}

func mediaType(s string) string {
	media, _, _ := strings.Cut(s, ";")
	return strings.TrimSpace(media)
}
