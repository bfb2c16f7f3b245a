package mqtt

import (
	"strings"

	"github.com/eclipse/paho.golang/paho"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Reply is what a device published on {root}/{device}/commands/{name}/reply.
type Reply struct {
	Device, Name string
	Correlation  []byte // nil: an MQTT 3.1.1 device
	Payload      []byte
	Status       string // user property of that name; empty: none
}

// command is the topic on which a device gets the commands of a name, and answers one level below.
func (t topics) command(device, name string) string { return t.prefix + device + "/commands/" + name }

func (t topics) reply(device, name string) string { return t.command(device, name) + "/reply" }

func (t topics) replyFilter() string { return t.prefix + "+/commands/+/reply" }

// parseReply splits the topic of a reply.
func (t topics) parseReply(topic string) (device, name string, ok bool) {
	device, rest, ok := t.of(topic)
	rest, isCommand := strings.CutPrefix(rest, "commands/")
	name, isReply := strings.CutSuffix(rest, "/reply")
	if !ok || !isCommand || !isReply || name == "" || strings.Contains(name, "/") || checkDevice([]byte(device)) != "" {
		return "", "", false
	}
	return device, name, true
}

// replyOfPaho reads a message that came by a subscription. One that the broker had retained answers nothing.
func (t topics) replyOfPaho(p *paho.Publish) (r Reply, ok bool) {
	if r.Device, r.Name, ok = t.parseReply(p.Topic); !ok || p.Retain {
		return r, false
	}
	r.Payload = p.Payload
	if p.Properties != nil {
		r.Correlation, r.Status = p.Properties.CorrelationData, p.Properties.User.Get("status")
	}
	return r, true
}

// replyOfMochi reads a message that a device sends to the embedded broker.
func (t topics) replyOfMochi(pk *packets.Packet) (r Reply, ok bool) {
	if r.Device, r.Name, ok = t.parseReply(pk.TopicName); !ok {
		return r, false
	}
	r.Payload, r.Correlation = pk.Payload, pk.Properties.CorrelationData
	for _, u := range pk.Properties.User {
		if u.Key == "status" {
			r.Status = u.Val
			break
		}
	}
	return r, true
}
