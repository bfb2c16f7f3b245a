package router

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

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
	// Handle makes fn the actor of that name. Calls of fn for one node come one after another.
	Handle(name string, fn func(from string, m proto.Message))
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

// fill makes to what m, of that device, is on the wire. It shares m's payload.
func fill(to *doppelv1.DeviceMessage, m *host.Message, device string) {
	to.Kind = kindOf(m.Kind)
	to.Device, to.Payload = device, m.Payload
	to.ContentType, to.Topic = m.ContentType, m.Topic
	to.ReceivedAt, to.Attempts = m.ReceivedAt, uint32(m.Attempts)
	to.Boot, to.Seq = nil, nil
	if m.Numbered {
		to.Boot, to.Seq = new(m.Boot), new(m.Seq)
	}
}

// restored is the message that m, of that device, was; Kind 0: none that this build knows.
func restored(m *doppelv1.DeviceMessage, device []byte) host.Message {
	return host.Message{
		Kind: kindFrom(m.GetKind()), Attempts: uint8(min(m.GetAttempts(), maxAttempts)), Numbered: m.Seq != nil,
		Device: device, Payload: m.GetPayload(), ContentType: m.GetContentType(),
		ReceivedAt: m.GetReceivedAt(), Boot: m.GetBoot(), Seq: m.GetSeq(), Topic: m.GetTopic(),
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
