package router

import (
	"sync/atomic"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// reason is why a message took the slow path.
type reason uint8

// The reasons.
const (
	saturated    reason = iota // the owner stands still and its mailbox is full, or what is on the way to it is too much
	unknownOwner               // nobody is known to own the partition
	down                       // its owner has ended and none has begun yet, or its node does not answer
	restoring                  // its owner claims, or reads what was
	moving                     // it left the node it was sent to
	reasons
)

func (r reason) String() string {
	return [...]string{saturated: "saturated", unknownOwner: "unknown_owner", down: "down", restoring: "restoring", moving: "moving"}[r]
}

// hop is what became of a message that was sent to another node, or came from one.
type hop uint8

// The ends of a hop.
const (
	hopReleased   hop = iota
	hopNotOwner       // the node does not serve its partition
	hopBusy           // no room
	hopFailed         // could not be made durable, or not be understood
	hopUnanswered     // no verdict in time, or it could not be sent
	hops
)

func (h hop) String() string {
	return [...]string{
		hopReleased: "released", hopNotOwner: "not_owner", hopBusy: "busy", hopFailed: "failed", hopUnanswered: "unanswered",
	}[h]
}

// verdict is what h is called on the wire.
func (h hop) verdict() doppelv1.DeliveryVerdict {
	return [...]doppelv1.DeliveryVerdict{
		hopReleased:   doppelv1.DeliveryVerdict_DELIVERY_VERDICT_RELEASED,
		hopNotOwner:   doppelv1.DeliveryVerdict_DELIVERY_VERDICT_NOT_OWNER,
		hopBusy:       doppelv1.DeliveryVerdict_DELIVERY_VERDICT_BUSY,
		hopFailed:     doppelv1.DeliveryVerdict_DELIVERY_VERDICT_FAILED,
		hopUnanswered: doppelv1.DeliveryVerdict_DELIVERY_VERDICT_UNSPECIFIED,
	}[h]
}

func hopOf(v host.Verdict) hop {
	return [...]hop{host.Released: hopReleased, host.NotOwner: hopNotOwner, host.Busy: hopBusy, host.Failed: hopFailed}[v]
}

// Stats are the accounts of the slow path and of the ways between nodes. Safe for concurrent use.
type Stats struct {
	slow    [reasons]atomic.Uint64
	failed  atomic.Uint64
	waiting atomic.Int64

	forwarded, received, late atomic.Uint64
	hops, answered            [hops]atomic.Uint64
}

// Slow calls fn with the number of messages made durable in doppel.ingest, by reason.
func (s *Stats) Slow(fn func(reason string, n uint64)) {
	for r := range reasons {
		fn(r.String(), s.slow[r].Load())
	}
}

// Failed is how many messages doppel.ingest did not take; their doors kept them.
func (s *Stats) Failed() uint64 { return s.failed.Load() }

// Waiting is how many messages are on the slow path and not durable yet.
func (s *Stats) Waiting() int64 { return s.waiting.Load() }

// Forwarded is how many messages were sent to the node that serves their partition.
func (s *Stats) Forwarded() uint64 { return s.forwarded.Load() }

// Received is how many messages came from other nodes.
func (s *Stats) Received() uint64 { return s.received.Load() }

// Late is how many verdicts came for messages that had gone another way.
func (s *Stats) Late() uint64 { return s.late.Load() }

// Hops calls fn with the number of messages for other nodes, by what became of them: released,
// not_owner, busy, failed, unanswered.
func (s *Stats) Hops(fn func(end string, n uint64)) {
	for h := range hops {
		fn(h.String(), s.hops[h].Load())
	}
}

// Answered calls fn with the number of messages from other nodes, by the verdict they got here.
func (s *Stats) Answered(fn func(verdict string, n uint64)) {
	for h := range hopUnanswered {
		fn(h.String(), s.answered[h].Load())
	}
}
