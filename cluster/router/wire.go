package router

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Route is where a partition is served, as far as this node knows. It may be wrong: a node that does
// not serve the partition says so, and its messages take the slow path.
type Route struct {
	Local bool
	// Address of the node that serves it; empty and not local: nobody is known to.
	Address string
}

// Wire takes messages to actors of other nodes; see cluster/remote.
type Wire interface {
	// Tell sends m, at most once, and does not block; m is free again when it returns. After an error
	// m was not sent: remote.ErrFull says that it may be soon, others that the node cannot be reached.
	Tell(address, name string, m proto.Message) error
	// TellEncoded is Tell for the encoding of a message; kind is the full name of its type.
	TellEncoded(address, name, kind string, b []byte) error
	// Handle makes fn the actor of that name. Calls of fn for one node come one after another.
	Handle(name string, fn func(from string, m proto.Message))
	// HandleEncoded is Handle for messages of one type that fn decodes itself. b is fn's until it returns.
	HandleEncoded(name, kind string, fn func(from string, b []byte) error)
	// Heard is when anything was last received from a node; zero: never.
	Heard(address string) time.Time
}

// The actors of every router: messages come to one, verdicts to the other.
const (
	inboxName  = "router/inbox"
	outboxName = "router/outbox"
)

// Why messages do not take the way to another node.
var (
	errUnknownOwner = errors.New("no node is known to serve the partition")
	errDown         = errors.New("the node that serves the partition does not answer")
	errMoving       = errors.New("the partition is being moved")
	errNoRoom       = errors.New("as much as may be is on its way to the node that serves the partition")
	errBehind       = errors.New("earlier messages of the partition are on the slow path")
)

// anyPartition in a request: each message is of the partition of its device.
const anyPartition = -1

// maxAttempts is what host.Message can count.
const maxAttempts = math.MaxUint8

// delivered is m as it is on the wire. It shares m's memory.
func delivered(m *host.Message) codec.Delivered {
	return codec.Delivered{
		Kind: kindOf(m.Kind), Attempts: uint32(m.Attempts), Numbered: m.Numbered, Device: m.Device, Payload: m.Payload,
		ContentType: m.ContentType, Topic: m.Topic, ReceivedAt: m.ReceivedAt, Boot: m.Boot, Seq: m.Seq,
	}
}

// restored is the message that m was, in m's memory; Kind 0: none that this build knows.
func restored(m *codec.Delivered) host.Message {
	return host.Message{
		Kind: kindFrom(m.Kind), Attempts: uint8(min(m.Attempts, maxAttempts)), Numbered: m.Numbered, Device: m.Device, Payload: m.Payload,
		ContentType: m.ContentType, Topic: m.Topic, ReceivedAt: m.ReceivedAt, Boot: m.Boot, Seq: m.Seq,
	}
}

func kindOf(k host.MessageKind) doppelv1.DeviceMessageKind {
	switch k {
	case host.Telemetry:
		return doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_TELEMETRY
	case host.Status:
		return doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_STATUS
	case host.Reported:
		return doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_REPORTED
	}
	return doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_UNSPECIFIED
}

func kindFrom(k doppelv1.DeviceMessageKind) host.MessageKind {
	switch k {
	case doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_TELEMETRY:
		return host.Telemetry
	case doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_STATUS:
		return host.Status
	case doppelv1.DeviceMessageKind_DEVICE_MESSAGE_KIND_REPORTED:
		return host.Reported
	default:
		return 0
	}
}
