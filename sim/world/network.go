package world

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var errFull = errors.New("the connection is full")

// network carries messages between nodes: at most once, in the order of their sender unless one is doubled.
type network struct {
	w     *World
	links []*link // by sender and receiver
}

// link is one direction between two nodes.
type link struct {
	from, to string
	cut      bool // what is sent is lost
	packets  []packet
}

type packet struct {
	actor string
	m     proto.Message
}

func (n *network) link(from, to string) *link {
	for _, l := range n.links {
		if l.from == from && l.to == to {
			return l
		}
	}
	panic("world: no link from " + from + " to " + to)
}

// forget loses what is on its way to and from a process that died.
func (n *network) forget(name string) {
	for _, l := range n.links {
		if l.from == name || l.to == name {
			l.packets = nil
		}
	}
}

// deliver hands over the first packet of a link, or loses it if nobody can hear it.
func (n *network) deliver(l *link) bool {
	if len(l.packets) == 0 {
		return false
	}
	to := n.w.byName(l.to).p
	switch {
	case to == nil || l.cut:
		l.packets = nil
		return true
	case to.paused:
		return false
	}
	pk := l.packets[0]
	l.packets = l.packets[1:]
	to.heard[l.from] = to.time()
	if fn := to.handlers[pk.actor]; fn != nil {
		fn(l.from, pk.m)
	}
	return true
}

// wire implements the Wire of peers, handover and router for a process.
type wire struct{ p *process }

// Tell implements handover.Wire and peers.Wire.
func (x wire) Tell(address, actor string, m proto.Message) error {
	const most = 64 // a link holds so much and no more, as the buffers of a connection do
	l := x.p.w.net.link(x.p.n.name, address)
	if len(l.packets) >= most {
		return errFull
	}
	m = proto.Clone(m)
	if b := x.p.w.broken; b != nil && b.wire != nil {
		b.wire(m)
	}
	l.packets = append(l.packets, packet{actor: actor, m: m})
	return nil
}

// TellEncoded implements router.Wire: on its way the message is as any other.
func (x wire) TellEncoded(address, actor, kind string, b []byte) error {
	typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(kind))
	if err != nil {
		return err
	}
	m := typ.New().Interface()
	if err := proto.Unmarshal(b, m); err != nil {
		return err
	}
	return x.Tell(address, actor, m)
}

// HandleEncoded implements router.Wire.
func (x wire) HandleEncoded(actor, _ string, fn func(from string, b []byte) error) {
	x.Handle(actor, func(from string, m proto.Message) {
		b, err := proto.Marshal(m)
		if err == nil {
			err = fn(from, b)
		}
		if err != nil {
			panic("world: a message between nodes cannot be read: " + err.Error())
		}
	})
}

// Heard implements router.Wire.
func (x wire) Heard(address string) time.Time { return x.p.heard[address] }

// Handle implements handover.Wire and peers.Wire.
func (x wire) Handle(actor string, fn func(from string, m proto.Message)) { x.p.handlers[actor] = fn }
