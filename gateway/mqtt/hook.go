package mqtt

import (
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/actors/host"
)

// hook takes what devices publish out of the embedded broker. mochi calls it from each connection's
// read goroutine.
type hook struct {
	mochi.HookBase
	broker *Broker
	peers  sync.Map // *mochi.Client -> *peer
}

// ID implements mochi's Hook.
func (h *hook) ID() string { return "doppel" }

// Provides implements mochi's Hook.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnConnect, mochi.OnSessionEstablish, mochi.OnSessionEstablished,
		mochi.OnDisconnect, mochi.OnClientExpired, mochi.OnPacketRead, mochi.OnPacketEncode,
		mochi.OnPublish, mochi.OnWillSent, mochi.OnSubscribed:
		return true
	}
	return false
}

// OnConnect switches off mochi's send quota for the client: in v2.7.9 it leaks, so that delivery
// stops after twice the client's Receive Maximum, and it takes a read lock recursively, which dead-locks
// the broker. It also keeps a delayed will from outliving its session, which mochi would then send
// without retaining it.
func (h *hook) OnConnect(cl *mochi.Client, _ packets.Packet) error {
	cl.Properties.Props.ReceiveMaximum = 0 // looked at again when a session is inherited
	cl.State.Inflight.ResetSendQuota(0)
	expiry := cl.Properties.Props.SessionExpiryInterval
	will := &cl.Properties.Will.WillDelayInterval
	*will = min(*will, max(expiry, willMargin)-willMargin)
	return nil
}

// willMargin is how many seconds before its session a delayed will must go at the latest: mochi looks
// at both once a second, in no fixed order.
const willMargin = 2

// OnSessionEstablish lets go of the connection this one takes over: its reader may still be waiting
// for the inlet, and would for ever more of them while a device tries again and again.
func (h *hook) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	if old, ok := h.broker.server.Clients.Get(cl.ID); ok {
		if p := h.peer(old); p != nil {
			p.close()
		}
		h.broker.access.takesOver(cl, old)
	}
}

// OnSessionEstablished implements mochi's Hook.
func (h *hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	h.broker.access.tookOver(cl)
	cl.State.Inflight.ResetSendQuota(0)
	h.peers.Store(cl, newPeer(h.broker, cl))
	h.broker.stats.Connects.Add(1)
	h.broker.stats.Connected.Add(1)
}

// OnDisconnect implements mochi's Hook.
func (h *hook) OnDisconnect(cl *mochi.Client, _ error, expire bool) {
	if expire {
		h.broker.access.forget(cl)
	}
	if p := h.peer(cl); p != nil {
		h.broker.leftovers.Store(p, nil) // first: Clear must find it in one of the two
		h.peers.Delete(cl)
		p.close()
		h.broker.stats.Connected.Add(-1)
	}
}

// OnClientExpired ends the subscriptions of a session that has expired: mochi leaves them, and a
// shared one would go on swallowing its part of the messages.
func (h *hook) OnClientExpired(cl *mochi.Client) {
	h.broker.server.UnsubscribeClient(cl)
	h.broker.access.forget(cl)
}

// OnPacketRead keeps the identifiers of the two directions apart: mochi has one table for both.
//
// A packet of the device with the identifier of a message on its way to the device would be refused,
// or would make mochi forget that message. It gets another identifier for the time it is processed.
// (Not for QoS 2, whose PUBREL must find it.) The repetition of a QoS 2 message that is released
// would be answered with an error; without its receipt it comes to OnPublish like any other.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	p := h.peer(cl)
	if p == nil {
		return pk, nil
	}
	p.standIn = 0
	entry, taken := cl.State.Inflight.Get(pk.PacketID)
	if !taken || pk.PacketID == 0 {
		return pk, nil
	}
	outbound := entry.FixedHeader.Type == packets.Publish || entry.FixedHeader.Type == packets.Pubrel
	switch t, qos := pk.FixedHeader.Type, pk.FixedHeader.Qos; {
	case t == packets.Publish && qos == 2 && entry.Origin == ownReceipt:
		p.repeat = pk.PacketID
		cl.State.Inflight.IncreaseReceiveQuota()
		if cl.State.Inflight.Delete(pk.PacketID) {
			atomic.AddInt64(&h.broker.server.Info.Inflight, -1)
		}
	case outbound && (t == packets.Publish && qos == 1 || t == packets.Subscribe || t == packets.Unsubscribe):
		if free, err := cl.NextPacketID(); err == nil {
			p.sent, p.standIn = pk.PacketID, uint16(free)
			pk.PacketID = p.standIn
		}
	}
	return pk, nil
}

// OnPacketEncode tells clients of the limits mochi has but does not announce, and leaves user
// properties in messages to clients that want none in answers: mochi drops them everywhere.
func (h *hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if pk.ReasonCode == 0 {
			pk.Properties.TopicAliasMaximum = h.broker.server.Options.Capabilities.TopicAliasMaximum
			pk.Properties.MaximumPacketSize = h.broker.cfg.MaxPacket
		}
	case packets.Publish:
		pk.Mods.DisallowProblemInfo = false
	case packets.Puback, packets.Suback, packets.Unsuback: // written by the read goroutine
		if p := h.peer(cl); p != nil {
			pk.PacketID = p.original(pk.PacketID)
		}
	}
	return pk
}

// OnPublish takes the messages of devices; all others are the broker's. It holds the connection's
// read goroutine while the inlet, or this device's window, is full.
func (h *hook) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	if !h.broker.access.mayPublish(cl, pk.TopicName) {
		h.deny(cl, &pk)
		return pk, packets.ErrRejectPacket
	}
	topic := []byte(pk.TopicName)
	device, kind, ok := h.broker.topics.parse(topic)
	p := h.peer(cl)
	if !ok || p == nil {
		h.reply(&pk)
		return pk, nil
	}
	if h.broker.closing.Load() {
		return pk, packets.ErrRejectPacket // unacknowledged: the device sends it again, elsewhere or later
	}
	id := p.original(pk.PacketID)
	if pk.FixedHeader.Qos == 2 {
		repeat := p.repeat == id
		p.repeat = 0
		if repeat {
			p.push(&host.Message{ReceivedAt: time.Now().UnixNano()}, nil, id, 2, done)
			return pk, packets.ErrRejectPacket
		}
		if pk.FixedHeader.Dup && p.holds(id) {
			return pk, packets.ErrRejectPacket // its PUBREC is on the way
		}
	}
	h.broker.forward(kind, pk)
	h.broker.take(p, &inbound{
		topic: pk.TopicName, device: device, kind: kind, payload: pk.Payload,
		contentType: pk.Properties.ContentType, user: pk.Properties.User, id: id, qos: pk.FixedHeader.Qos,
	})
	return taken(pk), nil
}

// taken is pk for mochi to do nothing with, not even acknowledge it: the peer does. To refuse it would
// come to the same, but mochi copies what it refuses for its log, whether that is written or not.
func taken(pk packets.Packet) packets.Packet {
	pk.Ignore = true
	pk.FixedHeader.Qos, pk.FixedHeader.Retain = 0, false
	return pk
}

// OnWillSent takes last wills, which do not pass through OnPublish; subscribers have it and it is
// retained already. At the end of the broker no device is gone: it is the broker that goes.
func (h *hook) OnWillSent(_ *mochi.Client, pk packets.Packet) {
	device, kind, ok := h.broker.topics.parse([]byte(pk.TopicName))
	if !ok || h.broker.closing.Load() {
		return
	}
	h.broker.takeWill(&inbound{topic: pk.TopicName, device: device, kind: kind, payload: pk.Payload, user: pk.Properties.User})
}

// OnSubscribed notes whether anybody may want to see what devices send.
func (h *hook) OnSubscribed(_ *mochi.Client, pk packets.Packet, _ []byte) {
	for _, f := range pk.Filters {
		if h.broker.topics.watches(f.Filter) {
			h.broker.watched.Store(true)
		}
	}
}

// closePeers lets go of all connections, however long their readers wait for room.
func (h *hook) closePeers() {
	h.peers.Range(func(_, v any) bool {
		if p, ok := v.(*peer); ok {
			p.close()
		}
		return true
	})
}

func (h *hook) peer(cl *mochi.Client) *peer {
	v, ok := h.peers.Load(cl)
	if !ok {
		return nil
	}
	p, _ := v.(*peer)
	return p
}

// reply hands on a message that is a reply to a command; for the broker it is like any other.
func (h *hook) reply(pk *packets.Packet) {
	if h.broker.cfg.Replies == nil {
		return
	}
	if r, ok := h.broker.topics.replyOfMochi(pk); ok {
		h.broker.cfg.Replies(r)
	}
}
