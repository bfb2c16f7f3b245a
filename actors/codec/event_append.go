package codec

import (
	"encoding/binary"
	"encoding/hex"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// AppendEvent appends the record to dst: the bytes the generated code would write, without its
// allocations. The alerts in it carry no device; that is the record's key.
func AppendEvent(dst []byte, e *Event) []byte {
	b := appendUint(dst, 1, uint64(e.Kind))
	b = appendUint(b, 2, e.Epoch)
	b = appendUint(b, 3, e.N)
	b = appendFixed(b, 4, uint64(e.Now))
	if in := &e.Input; in.Kind != 0 && in.ReceivedAt != e.Now {
		b = appendFixed(b, 5, uint64(in.ReceivedAt))
	}
	if e.SrcNext != (Position{}) {
		var at int
		b, at = open(b, 6)
		b = appendUint(b, 1, e.SrcNext.Offset)
		b = appendUint(b, 2, uint64(e.SrcNext.Index))
		b = shut(b, at)
	}
	b = appendInput(b, e)
	b = appendUint(b, 20, uint64(outcomeOf(e.Effects.Outcome)))
	for i := range e.Effects.Applied {
		b = appendApplied(b, &e.Effects.Applied[i])
	}
	b = appendFixed(b, 22, e.Digest)
	b = appendFixed(b, 23, e.SetDigest)
	b = appendUint(b, 24, e.Version)
	for i := range e.Effects.Transitions {
		b = appendAlert(b, 25, &e.Effects.Transitions[i])
	}
	b = appendUint(b, 26, uint64(e.Duplicates))
	return appendBool(b, 27, e.Effects.Tell)
}

func appendInput(b []byte, e *Event) []byte {
	var at int
	switch in := &e.Input; e.Kind {
	case doppelv1.EventKind_EVENT_KIND_SAMPLE:
		return appendSample(b, &in.Sample)
	case doppelv1.EventKind_EVENT_KIND_REFUSED:
		b, at = open(b, 8)
		b = appendUint(b, 1, in.Refused.Boot)
		b = appendUint(b, 2, in.Refused.Seq)
		b = appendString(b, 3, string(in.Refused.Reason))
		b = appendUint(b, 4, uint64(in.Refused.Count))
		b = appendBool(b, 5, in.Refused.Numbered)
	case doppelv1.EventKind_EVENT_KIND_GAP:
		b, at = open(b, 9)
		b = appendUint(b, 1, in.Gap.Boot)
		b = appendUint(b, 2, in.Gap.UpTo)
		b = appendBool(b, 3, in.Gap.Forced)
	case doppelv1.EventKind_EVENT_KIND_STATUS:
		b, at = open(b, 10)
		b = appendBool(b, 1, in.Status.Online)
		b = appendOptional(b, 2, in.Status.Boot, in.Status.HasBoot)
		b = appendOptional(b, 3, in.Status.Session, in.Status.HasSession)
	case doppelv1.EventKind_EVENT_KIND_REPORTED:
		b, at = open(b, 11)
		b = appendOptional(b, 1, in.Reported.Boot, in.Reported.Numbered)
		b = appendOptional(b, 2, in.Reported.Seq, in.Reported.Numbered)
		b = appendBytes(b, 3, in.Reported.Patch)
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		b, at = open(b, 12)
		b = appendText(b, 1, e.Claim.Node)
		b = appendUint(b, 2, e.Claim.Incarnation)
		b = appendFixed(b, 3, e.Claim.Nonce)
	case doppelv1.EventKind_EVENT_KIND_RULES:
		b, at = open(b, 13)
		b = append(b, e.Rules...)
	case doppelv1.EventKind_EVENT_KIND_DESIRED:
		b, at = open(b, 14)
		b = appendBytes(b, 1, in.Desired.Patch)
		b = appendTags(b, 2, in.Desired.Tags)
		b = appendBool(b, 3, in.Desired.ReplaceTags)
		for _, key := range in.Desired.RemovedTags {
			b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), key)
		}
	case doppelv1.EventKind_EVENT_KIND_ANCHOR:
		b, at = open(b, 15)
		b = append(b, e.Anchor...)
	case doppelv1.EventKind_EVENT_KIND_QUARANTINED:
		b, at = open(b, 16)
		b = appendText(b, 1, in.Quarantine.Reason)
	case doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED:
		b, at = open(b, 17)
		b = appendFixed(b, 1, in.Acknowledgement.Alert)
		b = appendText(b, 2, in.Acknowledgement.By)
		b = appendText(b, 3, in.Acknowledgement.Comment)
	default: // kinds without content
		return b
	}
	return shut(b, at)
}

func appendSample(b []byte, s *twin.Sample) []byte {
	b, at := open(b, 7)
	b = appendOptional(b, 1, s.Boot, s.Numbered)
	b = appendOptional(b, 2, s.Seq, s.Numbered)
	if s.Timed {
		b = protowire.AppendTag(b, 3, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, uint64(s.Time))
	}
	for i := range s.Readings {
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendString(b, s.Readings[i].Name)
	}
	if len(s.Readings) > 0 {
		b = appendPacked(b, 5, len(s.Readings))
		for i := range s.Readings {
			b = appendDouble(b, s.Readings[i].Value)
		}
	}
	b = appendBytes(b, 6, s.Reported)
	return shut(b, at)
}

func appendApplied(b []byte, a *twin.AppliedSample) []byte {
	b, at := open(b, 21)
	b = appendBool(b, 1, a.Own)
	b = appendOptional(b, 2, a.Boot, a.Numbered)
	b = appendOptional(b, 3, a.Seq, a.Numbered)
	b = appendFixed(b, 4, uint64(a.Time))
	b = appendBool(b, 5, a.Late)
	b = appendUint(b, 6, a.Count)
	if n := len(a.Readings); n > 0 {
		if !a.Own {
			for i := range a.Readings {
				b = protowire.AppendTag(b, 7, protowire.BytesType)
				b = protowire.AppendString(b, a.Readings[i].Name)
			}
			b = appendPacked(b, 8, n)
			for i := range a.Readings {
				b = appendDouble(b, a.Readings[i].Value)
			}
		}
		b = appendPacked(b, 9, n)
		for i := range a.Readings {
			b = appendDouble(b, a.Readings[i].Z)
		}
		b = appendPacked(b, 10, n)
		for i := range a.Readings {
			b = appendDouble(b, a.Readings[i].Score)
		}
	}
	if !a.Own {
		b = appendBytes(b, 11, a.Reported)
	}
	return shut(b, at)
}

// appendAlert appends a doppelv1.Alert, the public form of a.
func appendAlert(b []byte, num protowire.Number, a *alert.Alert) []byte {
	b, at := open(b, num)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, 16)
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], a.ID)
	b = hex.AppendEncode(b, id[:])
	b = appendText(b, 3, a.Rule)
	b = appendUint(b, 4, a.RuleVersion)
	b = appendText(b, 5, a.Metric)
	b = appendUint(b, 6, uint64(a.Severity))
	b = appendUint(b, 7, uint64(a.State))
	b = appendTime(b, 8, a.CreateTime)
	b = appendTime(b, 9, a.FireTime)
	b = appendTime(b, 10, a.ResolveTime)
	b = appendTime(b, 11, a.UpdateTime)
	b = appendFixed(b, 12, math.Float64bits(a.Value))
	b = appendFixed(b, 13, math.Float64bits(a.Score))
	b = appendUint(b, 14, a.BaselineCount)
	b = appendFixed(b, 15, math.Float64bits(a.BaselineMean))
	b = appendFixed(b, 16, math.Float64bits(a.BaselineStddev))
	b = appendUint(b, 17, a.Boot)
	b = appendUint(b, 18, a.Seq)
	b = appendText(b, 19, a.Reason)
	b = appendTime(b, 20, a.AcknowledgeTime)
	b = appendText(b, 21, a.AcknowledgedBy)
	b = appendBool(b, 22, a.Silenced())
	b = appendTags(b, 23, a.Tags)
	b = appendText(b, 24, a.AcknowledgeComment)
	b = appendText(b, 25, a.Silence)
	b = appendBool(b, 26, a.Shadow)
	b = appendBool(b, 27, a.Flapping)
	b = appendTime(b, 28, a.EscalateTime)
	return shut(b, at)
}

// appendTags appends a map of texts, in order of the keys.
func appendTags(b []byte, num protowire.Number, tags map[string]string) []byte {
	if len(tags) == 0 {
		return b
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		var at int
		b, at = open(b, num)
		b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), key)
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), tags[key])
		b = shut(b, at)
	}
	return b
}

// appendTime appends a google.protobuf.Timestamp; 0 means not yet.
func appendTime(b []byte, num protowire.Number, nanos int64) []byte {
	if nanos == 0 {
		return b
	}
	sec, nsec := nanos/1e9, nanos%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	b, at := open(b, num)
	b = appendUint(b, 1, uint64(sec))
	b = appendUint(b, 2, uint64(nsec))
	return shut(b, at)
}
