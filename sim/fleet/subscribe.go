package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	packetSubscribe = 0x82
	packetSuback    = 0x90
	// filtersMost bounds one SUBSCRIBE.
	filtersMost = 100
	subackLimit = 10 * time.Second
)

var (
	errSubscribe = errors.New("subscription refused")
	errPublish   = errors.New("malformed PUBLISH")
)

// subscribe asks for what the connection's obedient devices are told, and waits until that is granted:
// nothing else is in flight then that packet ids could clash with.
func (c *conn) subscribe(ctx context.Context) error {
	if len(c.obedient) == 0 {
		return nil
	}
	var filters []string
	for id := range c.obedient {
		filters = append(filters, c.cfg.TopicRoot+"/"+id+"/desired", c.cfg.TopicRoot+"/"+id+"/commands/+")
	}
	limit := time.NewTimer(subackLimit)
	defer limit.Stop()
	for id := uint16(1); len(filters) > 0; id++ {
		n := min(filtersMost, len(filters))
		c.send(appendSubscribe(nil, c.cfg.Version, id, filters[:n]))
		filters = filters[n:]
		select {
		case refused := <-c.link.granted:
			if refused {
				return errSubscribe
			}
		case <-c.link.ended:
			return errors.New("connection broke while subscribing")
		case <-limit.C:
			return errors.New("no SUBACK")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// subscribeAgain is subscribe on a new connection, which it ends when that fails. A broker that refuses is
// taken at its word: the devices are told nothing.
func (c *conn) subscribeAgain(ctx context.Context) error {
	err := c.subscribe(ctx)
	switch {
	case errors.Is(err, errSubscribe):
		c.log.Warn("devices are told nothing", "error", err)
		return nil
	case err != nil:
		c.link.cut()
		<-c.link.ended
	}
	return err
}

// appendSubscribe adds a SUBSCRIBE of QoS 1.
func appendSubscribe(b []byte, version Version, id uint16, filters []string) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == V5 {
		body = append(body, 0)
	}
	for _, f := range filters {
		body = append(appendString(body, f), 1)
	}
	b = append(b, packetSubscribe)
	return append(appendLength(b, len(body)), body...)
}

// parseSuback says whether any filter was refused.
func parseSuback(version Version, body []byte) (refused bool, err error) {
	if len(body) < 3 {
		return false, errors.New("short SUBACK")
	}
	body = body[2:]
	if version == V5 {
		length, n := binary.Uvarint(body)
		if n <= 0 || length > uint64(len(body)-n) {
			return false, errors.New("malformed SUBACK")
		}
		body = body[n+int(length):]
	}
	for _, reason := range body {
		refused = refused || reason >= 0x80
	}
	return refused, nil
}

// heard is a PUBLISH to a device.
type heard struct {
	id          uint16 // 0: QoS 0
	topic       string
	payload     []byte
	response    string
	correlation []byte
}

// parseHeard reads a PUBLISH whose first byte is first. What it returns shares no memory with body.
func parseHeard(version Version, first byte, body []byte) (h heard, err error) {
	topic, body, ok := cutField(body)
	if !ok {
		return h, errPublish
	}
	if first&0x06 != 0 {
		if len(body) < 2 {
			return h, errPublish
		}
		h.id = binary.BigEndian.Uint16(body)
		body = body[2:]
	}
	if version == V5 {
		length, n := binary.Uvarint(body)
		if n <= 0 || length > uint64(len(body)-n) {
			return h, errPublish
		}
		if h.response, h.correlation, err = requestOf(body[n : n+int(length)]); err != nil {
			return h, err
		}
		body = body[n+int(length):]
	}
	h.topic, h.payload = string(topic), append([]byte(nil), body...)
	return h, nil
}

// requestOf reads Response Topic and Correlation Data among properties.
func requestOf(p []byte) (response string, correlation []byte, err error) {
	for len(p) > 0 {
		id := p[0]
		p = p[1:]
		size := 0
		switch id {
		case propContentType, 0x08, 0x09:
			v, _, ok := cutField(p)
			if !ok {
				return "", nil, errors.New("malformed property")
			}
			switch id {
			case 0x08:
				response = string(v)
			case 0x09:
				correlation = append([]byte(nil), v...)
			}
			size = 2 + len(v)
		case 0x26:
			for range 2 {
				v, _, ok := cutField(p[min(size, len(p)):])
				if !ok {
					return "", nil, errors.New("malformed property")
				}
				size += 2 + len(v)
			}
		case 0x01:
			size = 1
		case 0x02:
			size = 4
		case 0x0B:
			_, size = binary.Uvarint(p)
		default:
			return "", nil, fmt.Errorf("property 0x%02x in a PUBLISH", id)
		}
		if size <= 0 || size > len(p) {
			return "", nil, errors.New("malformed property")
		}
		p = p[size:]
	}
	return response, correlation, nil
}

// cutField takes a two-byte length and that many bytes off the front of b.
func cutField(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if n > len(b) {
		return nil, nil, false
	}
	return b[2:n], b[n:], true
}
