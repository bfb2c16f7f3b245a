package host

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// recordDiffers names the first thing in which a replayed record differs from what is recorded; empty:
// nothing. fx and t are what the replay gave.
func recordDiffers(t *twin.Twin, fx *twin.Effects, recorded *codec.Event) string {
	switch {
	case recorded.Version == 0:
		return "" // written for a twin that a panic had broken
	case recorded.Kind == doppelv1.EventKind_EVENT_KIND_ANCHOR:
		return anchorDiffers(t, recorded.Anchor)
	case !sameEffects(fx, &recorded.Effects):
		return effectsDiffer(fx, &recorded.Effects)
	case t.Digest() != recorded.Digest:
		return fmt.Sprintf("digest %016x, recorded %016x", t.Digest(), recorded.Digest)
	case t.SetDigest() != recorded.SetDigest:
		return fmt.Sprintf("set_digest %016x, recorded %016x", t.SetDigest(), recorded.SetDigest)
	case t.Version() != recorded.Version:
		return fmt.Sprintf("version %d, recorded %d", t.Version(), recorded.Version)
	}
	return ""
}

// anchorDiffers compares a twin with the whole of it that an anchor holds.
func anchorDiffers(t *twin.Twin, anchor []byte) string {
	var there twin.Twin
	if err := there.Decode(t.ID(), anchor, nil); err != nil {
		return "anchor: " + err.Error()
	}
	if there.Hash() == t.Hash() {
		return ""
	}
	return "anchor: " + stateDiffers(t, &there, "recorded")
}

func effectsDiffer(got, recorded *twin.Effects) string {
	switch {
	case got.Outcome != recorded.Outcome:
		return fmt.Sprintf("outcome %d, recorded %d", got.Outcome, recorded.Outcome)
	case got.Tell != recorded.Tell:
		return fmt.Sprintf("device to be told %t, recorded %t", got.Tell, recorded.Tell)
	case len(got.Applied) != len(recorded.Applied):
		return fmt.Sprintf("%d samples applied, recorded %d", len(got.Applied), len(recorded.Applied))
	case len(got.Transitions) != len(recorded.Transitions):
		return fmt.Sprintf("%d alert transitions, recorded %d", len(got.Transitions), len(recorded.Transitions))
	}
	for i := range got.Applied {
		if a, b := &got.Applied[i], &recorded.Applied[i]; !sameApplied(*a, *b) {
			return fmt.Sprintf("sample (boot %d, seq %d): %s", b.Boot, b.Seq, appliedDiffers(a, b))
		}
	}
	for i := range got.Transitions {
		if a, b := &got.Transitions[i], &recorded.Transitions[i]; !sameTransition(*a, *b) {
			return fmt.Sprintf("alert transition %d: %s, recorded %s", i, transitionText(a), transitionText(b))
		}
	}
	return "effects"
}

func appliedDiffers(a, b *twin.AppliedSample) string {
	if len(a.Readings) != len(b.Readings) {
		return fmt.Sprintf("%d readings, recorded %d", len(a.Readings), len(b.Readings))
	}
	for i := range a.Readings {
		x, y := &a.Readings[i], &b.Readings[i]
		switch {
		case x.Name != y.Name:
			return fmt.Sprintf("metric %q, recorded %q", x.Name, y.Name)
		case !sameFloat(x.Value, y.Value):
			return fmt.Sprintf("value of %s is %v, recorded %v", x.Name, x.Value, y.Value)
		case !sameFloat(x.Z, y.Z):
			return fmt.Sprintf("z of %s is %v, recorded %v", x.Name, x.Z, y.Z)
		case !sameFloat(x.Score, y.Score):
			return fmt.Sprintf("score of %s is %v, recorded %v", x.Name, x.Score, y.Score)
		}
	}
	return fmt.Sprintf("it is (boot %d, seq %d, time %d, count %d, late %t), recorded (boot %d, seq %d, time %d, count %d, late %t)",
		a.Boot, a.Seq, a.Time, a.Count, a.Late, b.Boot, b.Seq, b.Time, b.Count, b.Late)
}

func transitionText(a *alert.Alert) string {
	return fmt.Sprintf("%s of %s %s %s/%s at %d (value %v, score %v)", codec.AlertID(a.ID), a.Rule, a.Metric,
		doppelv1.AlertState(a.State), doppelv1.Severity(a.Severity), a.UpdateTime, a.Value, a.Score)
}

// stateDiffers names the first public field in which two states of a twin differ whose hashes do; what
// says whose the other one is.
func stateDiffers(t, other *twin.Twin, what string) string {
	a, b := codec.Twin(t), codec.Twin(other)
	a.GetCounters().Duplicate, b.GetCounters().Duplicate = 0, 0 // no part of the state
	if path, x, y := firstField(a.ProtoReflect(), b.ProtoReflect(), ""); path != "" {
		return fmt.Sprintf("%s is %s, %s %s", path, x, what, y)
	}
	return fmt.Sprintf("state hash %016x, %s %016x, in what is not shown (held samples, windows, timers)", t.Hash(), what, other.Hash())
}

// firstField finds the first field, in their order, in which two messages of a type differ.
func firstField(a, b protoreflect.Message, prefix string) (path, x, y string) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		va, vb := a.Get(f), b.Get(f)
		if a.Has(f) == b.Has(f) && va.Equal(vb) {
			continue
		}
		path = prefix + string(f.Name())
		switch {
		case f.IsMap():
			return firstKey(f, va.Map(), vb.Map(), path)
		case f.Name() == "counters" && a.Has(f) && b.Has(f):
			return firstField(va.Message(), vb.Message(), path+".")
		}
		return path, fieldText(a, f), fieldText(b, f)
	}
	return "", "", ""
}

func firstKey(f protoreflect.FieldDescriptor, a, b protoreflect.Map, path string) (where, x, y string) {
	where, x, y = path, strconv.Itoa(a.Len()), strconv.Itoa(b.Len())
	least := ""
	look := func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		same := a.Has(k) && b.Has(k) && a.Get(k).Equal(b.Get(k))
		if !same && (least == "" || k.String() < least) {
			least = k.String()
			if a.Has(k) && b.Has(k) && f.MapValue().Message() != nil {
				where, x, y = firstField(a.Get(k).Message(), b.Get(k).Message(), path+"."+least+".")
			} else {
				where, x, y = path+"."+least, presence(a.Has(k)), presence(b.Has(k))
			}
		}
		return true
	}
	a.Range(look)
	b.Range(look)
	return where, x, y
}

func presence(there bool) string {
	if there {
		return "there"
	}
	return "absent"
}

func fieldText(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !m.Has(f) && f.HasPresence() {
		return "absent"
	}
	return m.Get(f).String()
}
