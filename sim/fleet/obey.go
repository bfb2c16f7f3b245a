package fleet

import (
	"strconv"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// Obedient is a source that does what it is told. With Config.Interactive it is subscribed to its desired
// properties and its commands.
type Obedient interface {
	Source
	// Desired takes desired properties as the twin publishes them, and gives what is to be reported.
	Desired(payload []byte, now int64) (device.Report, bool)
	// Command does what it is told and gives the answer, and what is to be reported.
	Command(c *device.Command, now int64) (device.Answer, device.Report, bool)
}

// listener is an obedient device as its connection sees it. The writer owns it.
type listener struct {
	sender *sender
	source Obedient
	missed []byte // desired properties that came while the device was offline; nil: none
}

// split takes a topic apart into a device of this connection and what is behind it.
func (c *conn) split(topic string) (id, rest string, ok bool) {
	below, ok := strings.CutPrefix(topic, c.cfg.TopicRoot+"/")
	if !ok {
		return "", "", false
	}
	id, rest, ok = strings.Cut(below, "/")
	return id, rest, ok && c.obedient[id] != nil
}

// hear does what devices were told since the last time. The reader has put it down.
func (c *conn) hear() {
	c.mu.Lock()
	inbox := c.inbox
	c.inbox = nil
	c.mu.Unlock()
	if len(inbox) == 0 {
		return
	}
	now := time.Now().UnixNano()
	var acks []byte
	for i := range inbox {
		h := &inbox[i]
		if h.id != 0 {
			acks = append(acks, packetPuback, 2, byte(h.id>>8), byte(h.id))
		}
		if id, rest, ok := c.split(h.topic); ok {
			c.obey(c.obedient[id], h, rest, now)
		}
	}
	c.send(acks)
}

func (c *conn) obey(l *listener, h *heard, rest string, now int64) {
	name, isCommand := strings.CutPrefix(rest, "commands/")
	away := now < l.sender.awayUntil
	switch {
	case isCommand && away: // it does not hear
	case isCommand:
		answer, report, reports := l.source.Command(&device.Command{Name: name, Body: h.payload, Correlation: h.correlation}, now)
		if reports {
			c.say(l, report, now)
		}
		topic := h.response
		if topic == "" {
			topic = h.topic + "/reply"
		}
		props := properties{contentType: "application/json", correlation: h.correlation, user: [][2]string{{"status", strconv.Itoa(answer.Status)}}}
		c.later.push(now, &message{kind: wordMessage, device: l.sender, topic: []byte(topic), props: c.encodeProperties(&props), payload: answer.Body})
		c.rekey(l.sender)
	case rest != "desired" || len(h.payload) == 0: // cleared: there is no twin any more
	case away:
		l.missed = h.payload
	default:
		c.want(l, h.payload, now)
	}
}

// want takes desired properties.
func (c *conn) want(l *listener, payload []byte, now int64) {
	if report, ok := l.source.Desired(payload, now); ok {
		c.say(l, report, now)
	}
	c.rekey(l.sender)
}

// say publishes what a device reports of itself.
func (c *conn) say(l *listener, r device.Report, now int64) {
	props := properties{contentType: "application/json", user: [][2]string{
		{"boot", strconv.FormatUint(r.Boot, 10)}, {"seq", strconv.FormatUint(r.Seq, 10)},
	}}
	c.later.push(now, &message{
		kind: wordMessage, device: l.sender, topic: []byte(c.cfg.TopicRoot + "/" + l.source.ID() + "/reported"),
		props: c.encodeProperties(&props), payload: r.Patch,
	})
}

// rekey puts a device where it belongs in the queue after its pace may have changed.
func (c *conn) rekey(d *sender) {
	next := d.source.Due()
	if c.unpaced || next == device.Unpaced {
		return
	}
	for i := range c.devices.items {
		if c.devices.items[i].value == d {
			c.devices.set(i, next)
			return
		}
	}
}

// properties of a PUBLISH that is not telemetry.
type properties struct {
	contentType string
	correlation []byte
	user        [][2]string
}

// encodeProperties gives nothing in MQTT 3.1.1, which has none.
func (c *conn) encodeProperties(p *properties) []byte {
	if c.cfg.Version != V5 {
		return nil
	}
	b := appendString([]byte{propContentType}, p.contentType)
	if len(p.correlation) > 0 {
		b = appendString(append(b, 0x09), string(p.correlation))
	}
	for _, kv := range p.user {
		b = appendString(appendString(append(b, 0x26), kv[0]), kv[1])
	}
	return append(appendLength(nil, len(b)), b...)
}
