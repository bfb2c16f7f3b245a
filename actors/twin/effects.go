package twin

import "github.com/doppel-iot/doppel/actors/alert"

// Outcome is what became of an input.
type Outcome uint8

// The outcomes. Only Duplicate, Refuse and Unchanged leave the twin as it was (but for the count of
// duplicates) and are not logged.
const (
	Unchanged Outcome = iota // nothing to do: a tick that found nothing due, a status already known
	Applied                  // took effect in order, with what was held behind it
	Held                     // waits in the reorder buffer, which is part of the state
	Late                     // accepted behind the order
	Duplicate                // known to have been taken before
	Refuse                   // to the dead letters with Effects.Reason; log a KindRefused input next
)

// Logged says that the input changed the twin (or is an anchor), so that its record must be durable
// before anyone hears of it.
func (o Outcome) Logged() bool { return o == Applied || o == Held || o == Late }

// Effects is what one Step gave. The caller owns it and passes the same one again and again; what it
// holds is valid until the next Step.
type Effects struct {
	Outcome Outcome
	Reason  Reason // with Refuse
	Detail  string // with Refuse: one sentence that names the field and the remedy
	Field   string // with Refuse of KindDesired: desired or tags

	// Applied are the samples that took effect, in order: the input's own (Own), and those that were
	// held behind it. A late sample stands here too, marked Late.
	Applied []AppliedSample
	// Transitions of alerts, in order.
	Transitions []alert.Alert
	// Tell says that the device has to be told what is desired: that or what it lacks has changed, it is back, or
	// the twin is deleted and there is nothing to be told any more.
	Tell bool

	readings []ScoredReading // backing array of Applied[i].Readings
	scratch  []byte          // what is hashed
	reading  alert.Observation
}

// AppliedSample is a sample that took effect.
type AppliedSample struct {
	Own       bool // it is the input itself
	Late      bool
	Numbered  bool
	Boot, Seq uint64
	Time      int64
	// Count is the twin's count of applied samples, of a late one that of applied and late samples,
	// this one included: no two of an unnumbered device have both time and count in common.
	Count    uint64
	Readings []ScoredReading
	Reported []byte
}

// ScoredReading is a reading against the window before it. Z and Score are NaN below min_samples
// and for late samples.
type ScoredReading struct {
	Name            string
	Value, Z, Score float64
}
