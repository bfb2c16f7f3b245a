package fleet

import "time"

// read takes what the broker sends until the connection ends.
func (c *conn) read(l *link) {
	defer close(l.ended)
	var buf [256]byte
	var acks []ack
	for {
		p, err := readPacket(l.reader, buf[:])
		if err != nil {
			return
		}
		switch p.kind {
		case packetPuback:
			id, reason, err := parsePuback(p.body)
			if err != nil {
				c.log.Warn("broker sent a malformed packet", "error", err)
				l.cut()
				return
			}
			acks = append(acks, ack{id: id, reason: reason})
		case packetPublish & 0xF0:
			if err := c.overhear(p); err != nil {
				c.log.Warn("broker sent a malformed packet", "error", err)
				l.cut()
				return
			}
		case packetSuback:
			refused, err := parseSuback(c.cfg.Version, p.body)
			if err != nil {
				c.log.Warn("broker sent a malformed packet", "error", err)
				l.cut()
				return
			}
			select {
			case l.granted <- refused:
			default: // nobody asked
			}
		case packetPingresp:
		case packetDisconnect:
			c.log.Debug("broker disconnected", "body", p.body)
			l.cut()
			return
		default:
			c.log.Warn("broker sent a packet out of place", "type", p.kind)
			l.cut()
			return
		}
		// Acknowledgements that came together are taken together.
		if l.reader.Buffered() >= 4 && len(acks) < cap(buf[:]) {
			continue
		}
		if len(acks) > 0 && !c.acknowledge(acks) {
			l.cut()
			return
		}
		acks = acks[:0]
	}
}

// ack is a PUBACK.
type ack struct {
	id     uint16
	reason byte
}

// acknowledge marks messages. false: the broker refused one, or has nobody to give it to; the connection
// must be made anew, so that it and all behind it are sent again in order.
func (c *conn) acknowledge(acks []ack) bool {
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range acks {
		if a.reason >= 0x80 || a.reason == reasonUnrouted {
			c.totals.refusals++
			c.totals.lastReason = a.reason
			c.refused = true
			return false
		}
		if s := c.window.ack(a.id); s != nil {
			c.totals.acknowledged(s, now)
			c.lag.Store(now - s.sentAt)
		}
	}
	// The writer is woken for a handful of free places, not for each.
	if c.waiting && c.window.waiting() <= c.limit-max(1, c.limit/4) {
		c.waiting = false
		select {
		case c.freed <- struct{}{}:
		default:
		}
	}
	return true
}

// overhear puts a message to a device down for the writer, and wakes it.
func (c *conn) overhear(p incoming) error {
	h, err := parseHeard(c.cfg.Version, p.first, p.body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.inbox = append(c.inbox, h)
	c.mu.Unlock()
	select {
	case c.freed <- struct{}{}:
	default:
	}
	return nil
}
