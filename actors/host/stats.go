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
	// Received counts samples. Those that go back to their door without a result are taken out again:
	// they will be received anew, and the accounts must balance.
	Received                               atomic.Uint64
	Applied, Late, Duplicate, DeadLettered atomic.Uint64
	Held                                   atomic.Int64
	Gaps                                   atomic.Uint64
	Fenced                                 atomic.Uint64 // epochs ended by a newer claim or a failed append
	ReplayDifferences                      atomic.Uint64 // records whose replay gave other results (R5)
	Void                                   atomic.Uint64 // records skipped by readers (R3)
	Panics                                 atomic.Uint64
	Checkpoints, Floors                    atomic.Uint64               // acknowledged in doppel.state
	Rerouted                               atomic.Uint64               // records of doppel.ingest moved to the partition of their key
	Replayed                               atomic.Uint64               // records that restores have folded
	Warm                                   atomic.Uint64               // restores that went on from what was read ahead
	IngestLost                             atomic.Uint64               // records of doppel.ingest removed before any owner saw them (G5)
	ForcedGaps                             atomic.Uint64               // of Gaps, those declared before the barrier was passed
	Messages                               [Reported + 1]atomic.Uint64 // by MessageKind
	Ingested                               atomic.Uint64               // of Messages, those that came through doppel.ingest

	mu          sync.Mutex
	byReason    map[twin.Reason]uint64
	transitions map[[2]uint8]uint64 // by severity and state
}

// add takes held samples away before it counts what became of them: see Accounts.
func (s *Stats) add(c *Counts) {
	if c.Held != 0 {
		s.Held.Add(int64(c.Held))
	}
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
}

// sum is how many samples the counts bring from in flight to where they stay.
func (c *Counts) sum() int {
	return int(c.Applied) + int(c.Late) + int(c.Duplicate) + int(c.DeadLettered) + int(c.Held)
}

// sentBack takes samples out that their door keeps.
func (s *Stats) sentBack(samples int) { s.Received.Add(-uint64(samples)) }

// takeOver brings in samples that a partition holds without this process having received them: from
// an earlier one, or because the log has what an owner never saw acknowledged.
func (s *Stats) takeOver(held int64) {
	s.Received.Add(uint64(held)) // wraps around where it is negative
	s.Held.Add(held)
}

// Accounts are the counts of samples at one moment; InFlight is what the others leave of Received.
type Accounts struct {
	Received                               uint64
	Applied, Late, Duplicate, DeadLettered uint64
	Held, InFlight                         int64
}

// Accounts reads the counts. A sample goes from received over held to one of the four, and is looked
// for the other way round: one that moves meanwhile may be found in flight, but never twice.
func (s *Stats) Accounts() Accounts {
	a := Accounts{
		Applied: s.Applied.Load(), Late: s.Late.Load(), Duplicate: s.Duplicate.Load(), DeadLettered: s.DeadLettered.Load(),
	}
	a.Held = s.Held.Load()
	a.Received = s.Received.Load()
	a.InFlight = int64(a.Received-a.Applied-a.Late-a.Duplicate-a.DeadLettered) - a.Held
	return a
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

// Stage is a part of a sample's way whose time is observed once a batch, that of alerts once a transition.
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
