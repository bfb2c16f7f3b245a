package host

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// Counts of samples by what became of them. received = applied + late + duplicate + dead-lettered +
// held + in flight; held may be negative in a delta.
type Counts struct {
	Applied, Late, Duplicate, DeadLettered uint32
	Held                                   int32
}

// Stats are the accounts of a node (contract section 9). Safe for concurrent use.
type Stats struct {
	Received                               atomic.Uint64 // samples
	Applied, Late, Duplicate, DeadLettered atomic.Uint64
	Held                                   atomic.Int64
	Gaps                                   atomic.Uint64
	Fenced                                 atomic.Uint64 // epochs ended by a newer claim or a failed append
	ReplayDifferences                      atomic.Uint64 // records whose replay gave other results (R5)
	Void                                   atomic.Uint64 // records skipped by readers (R3)
	Panics                                 atomic.Uint64
	Messages                               [Reported + 1]atomic.Uint64 // by MessageKind

	mu          sync.Mutex
	byReason    map[twin.Reason]uint64
	transitions map[[2]uint8]uint64 // by severity and state
}

func (s *Stats) add(c *Counts) {
	if c.Applied != 0 {
		s.Applied.Add(uint64(c.Applied))
	}
	if c.Late != 0 {
		s.Late.Add(uint64(c.Late))
	}
	if c.Duplicate != 0 {
		s.Duplicate.Add(uint64(c.Duplicate))
	}
	if c.DeadLettered != 0 {
		s.DeadLettered.Add(uint64(c.DeadLettered))
	}
	if c.Held != 0 {
		s.Held.Add(int64(c.Held))
	}
}

// InFlight is how many samples are received and not settled yet.
func (s *Stats) InFlight() int64 {
	settled := s.Applied.Load() + s.Late.Load() + s.Duplicate.Load() + s.DeadLettered.Load()
	return int64(s.Received.Load()) - int64(settled) - s.Held.Load() //nolint:gosec // counts of samples
}

func (s *Stats) deadLettered(r twin.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byReason == nil {
		s.byReason = make(map[twin.Reason]uint64)
	}
	s.byReason[r]++
}

// DeadLetters calls fn with the number of dead letters of each reason met so far.
func (s *Stats) DeadLetters(fn func(r twin.Reason, n uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, n := range s.byReason {
		fn(r, n)
	}
}

func (s *Stats) transition(severity, state uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transitions == nil {
		s.transitions = make(map[[2]uint8]uint64)
	}
	s.transitions[[2]uint8{severity, state}]++
}

// Transitions calls fn with the number of alert transitions of each severity and state so far.
func (s *Stats) Transitions(fn func(severity, state uint8, n uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range s.transitions {
		fn(k[0], k[1], n)
	}
}

// Stage is a part of a sample's way whose time is observed once a batch.
type Stage string

// Stages that the host observes.
const (
	StageRoute   Stage = "route"   // received by the door until taken by its partition
	StageApply   Stage = "apply"   // one turn of a partition, a message
	StageDurable Stage = "durable" // handed to the log until acknowledged
	StageAlert   Stage = "alert"   // received until the transition is out
)

// Observe takes the time of a stage. It must be cheap and not block.
type Observe func(s Stage, d time.Duration)
