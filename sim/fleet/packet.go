package fleet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The control packets of MQTT 5 a publisher meets, with their flags.
const (
	packetConnect    = 0x10
	packetConnack    = 0x20
	packetPublish    = 0x32 // QoS 1
	packetPuback     = 0x40
	packetPingreq    = 0xC0
	packetPingresp   = 0xD0
	packetDisconnect = 0xE0
)

const (
	propContentType    = 0x03
	propReceiveMaximum = 0x21
	reasonUnrouted     = 0x10 // PUBACK: no matching subscribers
	maxPacketIn        = 1 << 20
)

// credentials open a connection.
type credentials struct {
	version                  Version
	clientID, user, password string
	keepAlive                uint16 // seconds
}

// appendConnect adds a CONNECT with a clean start and a session that ends with the connection: what
// is unacknowledged is the fleet's to remember, not the broker's.
func appendConnect(b []byte, c credentials) []byte {
	flags := byte(0x02)
	if c.user != "" {
		flags |= 0x80
	}
	if c.password != "" {
		flags |= 0x40
	}
	body := appendString(nil, "MQTT")
	body = append(body, byte(c.version), flags)
	body = binary.BigEndian.AppendUint16(body, c.keepAlive)
	if c.version == V5 {
		body = append(body, 0) // no properties
	}
	body = appendString(body, c.clientID)
	if c.user != "" {
		body = appendString(body, c.user)
	}
	if c.password != "" {
		body = appendString(body, c.password)
	}
	b = append(b, packetConnect)
	b = appendLength(b, len(body))
	return append(b, body...)
}

// appendPublish adds a PUBLISH of QoS 1. head is what publishHead gave for the device.
func appendPublish(b, topic []byte, id uint16, properties, payload []byte) []byte {
	b = append(b, packetPublish)
	b = appendLength(b, 2+len(topic)+2+len(properties)+len(payload))
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, properties...)
	return append(b, payload...)
}

// telemetryProperties are those of every sample; MQTT 3.1.1 has none.
func telemetryProperties(cfg Config) []byte {
	if cfg.Version != V5 {
		return nil
	}
	return contentType(cfg.Format.contentType())
}

// contentType encodes the properties of a PUBLISH: its Content Type, or none.
func contentType(name string) []byte {
	if name == "" {
		return []byte{0}
	}
	p := appendString([]byte{propContentType}, name)
	return append(appendLength(nil, len(p)), p...)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// incoming is a packet from the broker; body is valid until the next read.
type incoming struct {
	kind  byte
	first byte // with its flags
	body  []byte
}

var errLength = errors.New("malformed remaining length")

// readPacket reads one packet, using buf for its body if it is large enough.
func readPacket(r *bufio.Reader, buf []byte) (incoming, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return incoming{}, err
	}
	n, shift := 0, 0
	for {
		c, err := r.ReadByte()
		if err != nil {
			return incoming{}, err
		}
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return incoming{}, errLength
		}
	}
	if n > maxPacketIn {
		return incoming{}, fmt.Errorf("packet of %d bytes from the broker", n)
	}
	if n > cap(buf) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return incoming{}, err
	}
	return incoming{kind: kind & 0xF0, first: kind, body: buf}, nil
}

// parseConnack gives the broker's Receive Maximum.
func parseConnack(version Version, body []byte) (receiveMaximum int, err error) {
	if len(body) < 2 {
		return 0, errors.New("short CONNACK")
	}
	if body[1] != 0 {
		return 0, &RefusedError{Reason: body[1]}
	}
	if version != V5 {
		return 65535, nil
	}
	length, n := binary.Uvarint(body[2:])
	props := body[2+max(n, 0):]
	if n <= 0 || length > uint64(len(props)) {
		return 0, errors.New("malformed CONNACK")
	}
	return receiveMaximumOf(props[:length]), nil
}

// receiveMaximumOf walks over properties; what it cannot walk over ends the search, since the
// default is always a legal answer.
func receiveMaximumOf(p []byte) int {
	const whenAbsent = 65535
	for len(p) > 0 {
		id := p[0]
		p = p[1:]
		size := 0
		switch id {
		case propReceiveMaximum:
			if len(p) < 2 {
				return whenAbsent
			}
			return int(binary.BigEndian.Uint16(p))
		case 0x24, 0x25, 0x28, 0x29, 0x2A: // one byte
			size = 1
		case 0x13, 0x22: // two
			size = 2
		case 0x11, 0x27: // four
			size = 4
		case 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F: // string or binary
			if len(p) < 2 {
				return whenAbsent
			}
			size = 2 + int(binary.BigEndian.Uint16(p))
		case 0x26: // pair of strings
			for range 2 {
				if len(p) < size+2 {
					return whenAbsent
				}
				size += 2 + int(binary.BigEndian.Uint16(p[size:]))
			}
		default:
			return whenAbsent
		}
		if size > len(p) {
			return whenAbsent
		}
		p = p[size:]
	}
	return whenAbsent
}

// parsePuback gives packet id and reason.
func parsePuback(body []byte) (id uint16, reason byte, err error) {
	if len(body) < 2 {
		return 0, 0, errors.New("short PUBACK")
	}
	if len(body) > 2 {
		reason = body[2]
	}
	return binary.BigEndian.Uint16(body), reason, nil
}

// RefusedError is a CONNECT that the broker refused.
type RefusedError struct {
	Reason byte
}

// Error says which reason code the broker gave.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("broker refused the connection: reason 0x%02x", e.Reason)
}
