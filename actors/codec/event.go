package codec

import (
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Event is one record of doppel.telemetry (doppelv1.TwinEvent) in the twin's own types.
type Event struct {
	Kind doppelv1.EventKind
	// Epoch is the offset of the Claim in force, N the count within it; a Claim has neither.
	Epoch, N uint64
	// Now is when the owner applied the input, unix nanoseconds.
	Now int64
	// SrcNext: all of doppel.ingest below it was handled before or by this record.
	SrcNext Position

	// Input is the twin's input for the kinds that are one; Input.Kind then agrees with Kind.
	Input twin.Input
	// Exactly one of these for the kinds of the same name: Rules is an encoded doppelv1.RulesInput, Anchor
	// is what twin.EncodeCheckpoint gave.
	Claim  *Claim
	Rules  []byte
	Anchor []byte

	// Effects: of these, Outcome, Applied, Transitions and Tell are stored. An own applied sample must be
	// the one of Input; its readings carry the same names and values.
	Effects twin.Effects
	// Digest, SetDigest and Version of the twin after the record.
	Digest, SetDigest, Version uint64
	// Duplicates of this device acknowledged since its previous record.
	Duplicates uint32
}

// Position is a place in doppel.ingest: a record's offset and the index of a sample in it.
type Position struct {
	Offset uint64
	Index  uint32
}

// Claim opens an epoch; its offset is the epoch.
type Claim struct {
	Node               string
	Incarnation, Nonce uint64
}

// OfPartition says that the record changes the partition and no twin: its key names no device.
func (e *Event) OfPartition() bool {
	switch e.Kind {
	case doppelv1.EventKind_EVENT_KIND_CLAIM, doppelv1.EventKind_EVENT_KIND_RULES,
		doppelv1.EventKind_EVENT_KIND_UNSETTLED, doppelv1.EventKind_EVENT_KIND_SETTLED:
		return true
	default:
		return false
	}
}

// KindOf is the record's kind for an input of a twin.
func KindOf(k twin.Kind) doppelv1.EventKind {
	switch k {
	case twin.KindSample:
		return doppelv1.EventKind_EVENT_KIND_SAMPLE
	case twin.KindRefused:
		return doppelv1.EventKind_EVENT_KIND_REFUSED
	case twin.KindGap:
		return doppelv1.EventKind_EVENT_KIND_GAP
	case twin.KindTick:
		return doppelv1.EventKind_EVENT_KIND_TICK
	case twin.KindStatus:
		return doppelv1.EventKind_EVENT_KIND_STATUS
	case twin.KindReported:
		return doppelv1.EventKind_EVENT_KIND_REPORTED
	case twin.KindQuarantined:
		return doppelv1.EventKind_EVENT_KIND_QUARANTINED
	case twin.KindReset:
		return doppelv1.EventKind_EVENT_KIND_RESET
	case twin.KindAnchor:
		return doppelv1.EventKind_EVENT_KIND_ANCHOR
	case twin.KindAcknowledged:
		return doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED
	case twin.KindDesired:
		return doppelv1.EventKind_EVENT_KIND_DESIRED
	case twin.KindDeleted:
		return doppelv1.EventKind_EVENT_KIND_DELETED
	case twin.KindReviewed:
		return doppelv1.EventKind_EVENT_KIND_REVIEWED
	}
	return doppelv1.EventKind_EVENT_KIND_UNSPECIFIED
}

// inputKind is the inverse of KindOf; 0 for records that are no input of a twin.
func inputKind(k doppelv1.EventKind) twin.Kind {
	for i := twin.KindSample; KindOf(i) != doppelv1.EventKind_EVENT_KIND_UNSPECIFIED; i++ {
		if KindOf(i) == k {
			return i
		}
	}
	return 0
}

// outcomeOf is the stored form of an outcome. What leaves the twin as it was is stored as
// unspecified and read as Unchanged.
func outcomeOf(o twin.Outcome) doppelv1.EventOutcome {
	switch o {
	case twin.Applied:
		return doppelv1.EventOutcome_EVENT_OUTCOME_APPLIED
	case twin.Held:
		return doppelv1.EventOutcome_EVENT_OUTCOME_HELD
	case twin.Late:
		return doppelv1.EventOutcome_EVENT_OUTCOME_LATE
	case twin.Refuse:
		return doppelv1.EventOutcome_EVENT_OUTCOME_REFUSED
	case twin.Unchanged, twin.Duplicate:
	}
	return doppelv1.EventOutcome_EVENT_OUTCOME_UNSPECIFIED
}

func outcomeFrom(o uint64) twin.Outcome {
	switch doppelv1.EventOutcome(o) {
	case doppelv1.EventOutcome_EVENT_OUTCOME_APPLIED:
		return twin.Applied
	case doppelv1.EventOutcome_EVENT_OUTCOME_HELD:
		return twin.Held
	case doppelv1.EventOutcome_EVENT_OUTCOME_LATE:
		return twin.Late
	case doppelv1.EventOutcome_EVENT_OUTCOME_REFUSED:
		return twin.Refuse
	case doppelv1.EventOutcome_EVENT_OUTCOME_UNSPECIFIED:
	}
	return twin.Unchanged
}
