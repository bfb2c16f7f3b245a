package twin

import "github.com/doppel-iot/doppel/actors/alert"

// Kind says what an Input is.
type Kind uint8

// The inputs of a twin. Everything that changes a twin is one of these and is logged.
const (
	KindSample       Kind = iota + 1 // a telemetry sample
	KindRefused                      // the place of a numbered sample that went to the dead letters
	KindGap                          // the owner gives up on missing numbers
	KindTick                         // time passed and something is due
	KindStatus                       // the device or its last will says whether it is connected
	KindReported                     // a merge patch of reported properties
	KindQuarantined                  // the twin's code panicked: it takes nothing until a reset
	KindReset                        // numbering accepted anew, quarantine lifted
	KindAnchor                       // no effect, yet logged: its record holds the whole twin, for a replay to begin at
	KindAcknowledged                 // somebody looks after an open alert
	KindDesired                      // people want something else of the device, or sort it anew
	KindDeleted                      // people delete the twin
	KindReviewed                     // rules have just come in force that concern the twin as it is
)

// Input is one input of Step. Only the part that Kind names is read. Step copies what it keeps, so
// the caller may reuse every slice afterwards.
type Input struct {
	Kind Kind
	// ReceivedAt is when the first node received the message, unix nanoseconds.
	ReceivedAt int64

	Sample   Sample
	Refused  Refused
	Gap      Gap
	Status   Status
	Reported Reported

	Quarantine Quarantine

	Acknowledgement alert.Acknowledgement

	Desired Desired
}

// Reading is the value of one metric; a bool is 0 or 1. Name is a string that outlives the input
// (decoders intern it).
type Reading struct {
	Name  string
	Value float64
}

// Sample is one telemetry sample, checked by the decoder: names legal, values finite, numbers and
// times in range.
type Sample struct {
	Numbered  bool // it has a seq (without boot: boot 0)
	Timed     bool // it has a time; otherwise Time is ReceivedAt
	Boot, Seq uint64
	Time      int64     // unix nanoseconds
	Readings  []Reading // in byte order of name, no name twice
	Reported  []byte    // merge patch as compact JSON object, or nil
}

// Refused counts dead-lettered samples of this device; a numbered one takes its place in the order.
type Refused struct {
	Numbered  bool
	Boot, Seq uint64
	Reason    Reason
	Count     uint32 // samples dead-lettered, at least 1
}

// Gap gives up on the numbers of Boot from the next expected one up to, not including, UpTo.
type Gap struct {
	Boot, UpTo uint64
	Forced     bool // the limits of an unsettled partition were reached
}

// Status is presence as the device or its last will states it, ordered by (Boot, Session) where
// Session is given, by ReceivedAt otherwise.
type Status struct {
	Online              bool
	HasBoot, HasSession bool
	Boot, Session       uint64
}

// Reported is a merge patch (RFC 7396) of reported properties, with its own numbering if Numbered.
type Reported struct {
	Numbered  bool
	Boot, Seq uint64
	Patch     []byte // compact JSON object
}

// Quarantine closes a twin.
type Quarantine struct {
	Reason string // for people: what went wrong; the log keeps it, the twin does not
}
