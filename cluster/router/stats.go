package router

import "sync/atomic"

// reason is why a message took the slow path.
type reason uint8

// The reasons. That the owner is unknown cannot happen as long as this node owns everything.
const (
	saturated    reason = iota // the owner stands still and its mailbox is full
	unknownOwner               // nobody is known to own the partition
	down                       // its owner has ended and none has begun yet
	restoring                  // its owner claims, or reads what was
	reasons
)

func (r reason) String() string {
	return [...]string{saturated: "saturated", unknownOwner: "unknown_owner", down: "down", restoring: "restoring"}[r]
}

// Stats are the accounts of the slow path. Safe for concurrent use.
type Stats struct {
	slow    [reasons]atomic.Uint64
	failed  atomic.Uint64
	waiting atomic.Int64
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
