package mqtt

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// access is who the clients of the embedded broker are, and what they may do: a device speaks under its own
// topics and listens there, a service does everything. A client that is away keeps what it may do for as long
// as the broker keeps its session, because messages still come for it.
type access struct {
	users     *auth.DeviceUsers // nil: everybody is let in and may do everything
	anonymous bool
	topics    topics
	clients   sync.Map // *mochi.Client -> *admitted
}

// admitted is a client that was let in.
type admitted struct {
	device     atomic.Pointer[auth.Device]
	byPassword bool
	old        *mochi.Client // whose session it takes over; nil: none
}

var (
	errStranger = errors.New("neither name and password nor a client certificate")
	errWill     = errors.New("the topic of its last will is not its own")
	errClientID = errors.New("its client id is in use by somebody else")
)

// admit says who a client that connects is.
func (a *access) admit(cl *mochi.Client, pk *packets.Packet, server *mochi.Server) error {
	d, byPassword, err := a.identify(cl, pk)
	if err != nil {
		return err
	}
	if pk.Connect.WillFlag && !a.topics.mayPublish(d, pk.Connect.WillTopic) {
		return errWill
	}
	if old, ok := server.Clients.Get(cl.ID); ok {
		if before := a.of(old); before != nil && before.device.Load().Name != d.Name {
			return errClientID // or it would get the messages that wait for another
		}
	}
	in := &admitted{byPassword: byPassword}
	in.device.Store(d)
	a.clients.Store(cl, in)
	return nil
}

func (a *access) identify(cl *mochi.Client, pk *packets.Packet) (d *auth.Device, byPassword bool, err error) {
	if pk.Connect.UsernameFlag {
		d, err = a.users.Password(string(pk.Connect.Username), string(pk.Connect.Password))
		return d, true, err
	}
	if c, ok := cl.Net.Conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		if certs := auth.Verified(&state); len(certs) > 0 {
			d, err = a.users.Certificate(certs[0])
			return d, false, err
		}
	}
	if a.anonymous && !a.users.Has(cl.ID) {
		return auth.Own(cl.ID), false, nil
	}
	return nil, false, errStranger
}

func (a *access) of(cl *mochi.Client) *admitted {
	v, _ := a.clients.Load(cl)
	in, _ := v.(*admitted)
	return in
}

// takesOver notes whose session a client is about to take over; tookOver forgets the former one.
func (a *access) takesOver(cl, old *mochi.Client) {
	if in := a.of(cl); in != nil {
		in.old = old
	}
}

func (a *access) tookOver(cl *mochi.Client) {
	if in := a.of(cl); in != nil && in.old != nil {
		a.clients.Delete(in.old)
		in.old = nil
	}
}

func (a *access) forget(cl *mochi.Client) { a.clients.Delete(cl) }

// mayPublish says whether a client may publish to a topic.
func (a *access) mayPublish(cl *mochi.Client, topic string) bool {
	if a.users == nil || cl.Net.Inline {
		return true
	}
	in := a.of(cl)
	return in != nil && a.topics.mayPublish(in.device.Load(), topic)
}

// mayRead says whether a client may subscribe to a filter, or get a message of a topic.
func (a *access) mayRead(cl *mochi.Client, filter string) bool {
	if a.users == nil || cl.Net.Inline {
		return true
	}
	in := a.of(cl)
	return in != nil && a.topics.mayRead(in.device.Load(), filter)
}

// reconsider looks again at everybody after users have changed, and returns who may not stay.
func (a *access) reconsider() (gone []*mochi.Client) {
	a.clients.Range(func(k, v any) bool {
		cl, _ := k.(*mochi.Client)
		in, _ := v.(*admitted)
		if d, ok := a.users.Still(in.device.Load(), in.byPassword); ok {
			in.device.Store(d)
		} else {
			in.device.Store(&auth.Device{Name: in.device.Load().Name})
			gone = append(gone, cl)
		}
		return true
	})
	return gone
}

// of splits a topic into the device it belongs to and what is behind that.
func (t topics) of(topic string) (device, rest string, ok bool) {
	below, ok := strings.CutPrefix(topic, t.prefix)
	if !ok {
		return "", "", false
	}
	device, rest, ok = strings.Cut(below, "/")
	return device, rest, ok && device != "" && !strings.ContainsAny(device, "+#")
}

// mayPublish says whether d may publish to a topic: a device what devices send, under its own id.
func (t topics) mayPublish(d *auth.Device, topic string) bool {
	if d.Service {
		return true
	}
	device, rest, ok := t.of(topic)
	if !ok || !d.Is(device) {
		return false
	}
	switch rest {
	case "telemetry", "status", "reported":
		return true
	}
	name, isCommand := strings.CutPrefix(rest, "commands/")
	name, isReply := strings.CutSuffix(name, "/reply")
	return isCommand && isReply && name != "" && !strings.Contains(name, "/")
}

// mayRead says whether d may read what is below a filter: a device what is below its own id. It may not
// share a subscription, which would take messages away from itself elsewhere.
func (t topics) mayRead(d *auth.Device, filter string) bool {
	if d.Service {
		return true
	}
	device, _, ok := t.of(filter)
	return ok && d.Is(device)
}

// OnConnectAuthenticate lets in whom the users know. Without users it lets in everybody: the listener is
// on loopback, or the operator insists.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	a := h.broker.access
	if a.users == nil {
		return true
	}
	if err := a.admit(cl, &pk, h.broker.server); err != nil {
		h.broker.stats.Strangers.Add(1)
		h.broker.log.InfoContext(h.broker.work, "device not let in", "client_id", cl.ID, "remote", cl.Net.Remote, "error", err)
		return false
	}
	return true
}

// OnACLCheck is asked about subscriptions and about each message for a subscriber. Publications are looked
// at in OnPublish: here a topic may still be an alias.
func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	if write || h.broker.access.mayRead(cl, topic) {
		return true
	}
	h.broker.stats.Denied.Add(1)
	return false
}

// deny answers a publication to a topic that is not the client's own. MQTT 3.1.1 has no other answer than
// to end the connection.
func (h *hook) deny(cl *mochi.Client, pk *packets.Packet) {
	h.broker.stats.Denied.Add(1)
	h.broker.log.DebugContext(h.broker.work, "publication not authorised", "client_id", cl.ID, "topic", pk.TopicName)
	switch {
	case pk.FixedHeader.Qos == 0:
	case cl.Properties.ProtocolVersion < 5:
		cl.Stop(packets.ErrNotAuthorized)
	default:
		answer := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: pk.PacketID, ReasonCode: packets.ErrNotAuthorized.Code,
		}
		if pk.FixedHeader.Qos == 2 {
			answer.FixedHeader.Type = packets.Pubrec
		}
		_ = cl.WritePacket(answer) // a connection that is gone needs none
	}
}

// reconsider ends the connections of those whom the users know no more.
func (b *Broker) reconsider() {
	for _, cl := range b.access.reconsider() {
		if cl.Net.Conn == nil || cl.Closed() {
			continue
		}
		if cl.Properties.ProtocolVersion == 5 {
			_ = b.server.DisconnectClient(cl, packets.ErrNotAuthorized) // it stops the client
			continue
		}
		cl.Stop(packets.ErrNotAuthorized)
	}
}
