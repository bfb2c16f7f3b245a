package twin

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// DesiredVersion counts the changes of the desired properties.
func (t *Twin) DesiredVersion() uint64 {
	if t.wishes == nil {
		return 0
	}
	return t.wishes.version
}

// Desired is the desired properties as compact JSON, members in byte order of name. The twin goes on owning it.
func (t *Twin) Desired() []byte {
	if t.wishes == nil {
		return []byte("{}")
	}
	return t.wishes.desired
}

// Tags are the tags people gave the twin. The map is the twin's own and never changes.
func (t *Twin) Tags() map[string]string {
	if t.wishes == nil {
		return nil
	}
	return t.wishes.tags
}

// TagsVersion counts the changes of the tags.
func (t *Twin) TagsVersion() uint64 {
	if t.wishes == nil {
		return 0
	}
	return t.wishes.tagsVersion
}

// DivergeTime is since when the device does not report what is desired, unix nanoseconds; 0: it does.
func (t *Twin) DivergeTime() int64 {
	if t.wishes == nil {
		return 0
	}
	return t.wishes.diverged
}

// Convergence is how long it took until the device had reported all of what was last desired, in nanoseconds.
// ok is false while it has not, or where nothing was desired.
func (t *Twin) Convergence() (took int64, ok bool) {
	w := t.wishes
	if w == nil || w.version == 0 || w.took < 0 {
		return 0, false
	}
	return w.took, true
}

// Etag is a hash of what people write: it is the same as long as desired properties and tags are. What the
// twin itself keeps there, the current sampling interval, is not in it, or nobody could update a twin whose
// alerts come and go.
func (t *Twin) Etag() uint64 {
	w := t.wishes
	if w == nil {
		return xxhash.Sum64String("{}")
	}
	desired := w.desired
	if bytes.Contains(desired, []byte(`"`+samplingKey+`":`)) {
		all, _ := decodeObject(desired)
		if part, ok := sampling(all); ok {
			delete(part, currentMS)
			desired = appendCanonical(nil, all)
		}
	}
	b := slices.Clone(desired)
	for _, key := range slices.Sorted(maps.Keys(w.tags)) {
		b = appendText(appendText(b, key), w.tags[key])
	}
	return xxhash.Sum64(b)
}

// AppendDelta appends the members of desired whose reported value is absent or unequal, as compact JSON: of
// objects only the members that differ, arrays whole. The intervals that the twin chooses the current one from
// are not for the device and never in it.
func (t *Twin) AppendDelta(b []byte) []byte {
	delta := t.delta()
	if len(delta) == 0 {
		return append(b, "{}"...)
	}
	return appendCanonical(b, delta)
}

func (t *Twin) diverges() bool { return len(t.delta()) > 0 }

func (t *Twin) delta() map[string]any {
	w := t.wishes
	if w == nil || len(w.desired) <= len("{}") {
		return nil
	}
	want, _ := decodeObject(w.desired) // written by us
	if part, ok := sampling(want); ok {
		delete(part, intervalMS)
		delete(part, alertMS)
	}
	delta := make(map[string]any)
	for key, v := range want {
		text := t.ReportedMember(key)
		if text == nil {
			delta[key] = v
			continue
		}
		have, _ := decodeJSON(text)
		if d, differs := difference(v, have); differs {
			delta[key] = d
		}
	}
	return delta
}

// difference is what of want have lacks.
func difference(want, have any) (_ any, differs bool) {
	w, ok := want.(map[string]any)
	h, both := have.(map[string]any)
	if !ok || !both {
		return want, !equal(want, have)
	}
	out := make(map[string]any)
	for key, v := range w {
		old, there := h[key]
		if !there {
			out[key] = v
		} else if d, differs := difference(v, old); differs {
			out[key] = d
		}
	}
	return out, len(out) > 0
}

// equal compares JSON values; numbers by value, however they are written.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || sameNumber(a, b))
	default:
		switch b.(type) {
		case map[string]any, []any:
			return false
		}
		return a == b
	}
}

func sameNumber(a, b json.Number) bool {
	x, errX := strconv.ParseFloat(a.String(), 64)
	y, errY := strconv.ParseFloat(b.String(), 64)
	return errX == nil && errY == nil && x == y
}
