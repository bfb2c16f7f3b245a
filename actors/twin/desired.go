package twin

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

const (
	maxDesired  = 32 << 10 // bytes of all desired properties of a twin, as canonical JSON
	maxDepth    = 10       // of them
	maxTags     = 64
	maxTagKey   = 128
	maxTagValue = 1024
)

// Desired is a change of what people want of a device, and of how they sort it.
type Desired struct {
	Patch       []byte            // merge patch of the desired properties, a JSON object; empty: none
	Tags        map[string]string // set; nobody changes the map afterwards
	ReplaceTags bool              // Tags instead of those there are
	RemovedTags []string
}

// wishes is what people want of a device and say of it.
type wishes struct {
	desired     []byte // canonical JSON object
	version     uint64 // of desired; 0: nothing was ever desired
	tags        map[string]string
	tagsVersion uint64
	changed     int64  // when desired last changed
	diverged    int64  // since when reported is not what is desired, 0: it is
	took        int64  // how long it took until it was, -1: that is not known yet
	told        uint64 // hash of what the device was last told
}

// stepDesired takes a change of desired properties and tags. It makes a twin that does not exist.
func (t *Twin) stepDesired(s *step, in *Input) Outcome {
	d := &in.Desired
	w := t.wishes
	if w == nil {
		w = &wishes{desired: []byte("{}"), took: -1}
	}
	s.out.Field = "desired"
	desired, ok := t.patched(s, w.desired, d.Patch)
	if !ok {
		return Refuse
	}
	s.out.Field = "tags"
	tags, ok := d.apply(s, w.tags)
	if !ok {
		return Refuse
	}
	s.out.Field = ""
	wanted, tagged := !bytes.Equal(desired, w.desired), !maps.Equal(tags, w.tags)
	if !wanted && !tagged && t.version > 0 && !t.Deleted() {
		return Unchanged
	}
	if t.Deleted() {
		t.revive(s)
	}
	if !t.quarantined {
		t.release(s)
	}
	if wanted {
		w.desired, w.changed, w.took = desired, s.now, -1
		w.version++
	}
	if tagged {
		w.tags = tags
		w.tagsVersion++
	}
	if wanted || tagged {
		t.wishes = w
	}
	if tagged {
		t.book.Retag(s.rules, t.id, tags, s.now, &s.out.Transitions)
		t.noteStale(s)
	}
	return Applied
}

// patched is desired after a merge patch. It refuses what a twin cannot keep.
func (t *Twin) patched(s *step, desired, text []byte) (_ []byte, ok bool) {
	if len(text) == 0 {
		return desired, true
	}
	patch, err := decodeObject(text)
	if err != nil {
		s.out.refuse(NotDecodable, "want a JSON object")
		return nil, false
	}
	all, _ := decodeObject(desired) // written by us
	merged, _ := mergePatch(all, patch).(map[string]any)
	if deep := depth(merged); deep > maxDepth {
		s.out.refuse(TooLarge, fmt.Sprintf("%d levels deep after the change, at most %d are allowed", deep, maxDepth))
		return nil, false
	}
	pace(merged, t.book.Firing())
	out := appendCanonical(nil, merged)
	if len(out) > maxDesired {
		s.out.refuse(TooLarge, fmt.Sprintf("%d bytes after the change, at most %d are allowed: remove properties first", len(out), maxDesired))
		return nil, false
	}
	return out, true
}

// depth is how many levels of objects and arrays there are.
func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depth(e))
		}
	case []any:
		for _, e := range v {
			deepest = max(deepest, depth(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

// apply is what becomes of tags. It never changes the map.
func (d *Desired) apply(s *step, tags map[string]string) (_ map[string]string, ok bool) {
	if len(d.Tags) == 0 && len(d.RemovedTags) == 0 && !d.ReplaceTags {
		return tags, true
	}
	next := make(map[string]string, len(tags)+len(d.Tags))
	if !d.ReplaceTags {
		maps.Copy(next, tags)
	}
	maps.Copy(next, d.Tags)
	for _, key := range d.RemovedTags {
		delete(next, key)
	}
	for _, key := range slices.Sorted(maps.Keys(d.Tags)) {
		if key == "" || len(key) > maxTagKey || len(d.Tags[key]) > maxTagValue {
			s.out.refuse(TooLarge, fmt.Sprintf("tag %.32q: a key has 1 to %d bytes, a value at most %d", key, maxTagKey, maxTagValue))
			return nil, false
		}
	}
	if len(next) > maxTags {
		s.out.refuse(TooLarge, fmt.Sprintf("%d tags after the change, at most %d are allowed", len(next), maxTags))
		return nil, false
	}
	return next, true
}

// The property by which people slow down a device that is well: a twin keeps currentMS itself.
const (
	samplingKey = "_sampling"
	intervalMS  = "interval_ms"
	alertMS     = "alert_interval_ms"
	currentMS   = "current_ms"
)

// sampling is the sampling part of some properties, if it is what people write there.
func sampling(all map[string]any) (part map[string]any, ok bool) {
	part, ok = all[samplingKey].(map[string]any)
	return part, ok && positive(part[intervalMS])
}

func positive(v any) bool {
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	return err == nil && i > 0
}

// pace says in desired properties how often the device is to sample: more often while something is wrong.
func pace(all map[string]any, alarmed bool) (changed bool) {
	part, ok := sampling(all)
	if !ok {
		return false
	}
	want := part[intervalMS]
	if alarmed && positive(part[alertMS]) {
		want = part[alertMS]
	}
	if part[currentMS] == want {
		return false
	}
	part[currentMS] = want
	return true
}

// repace adapts the sampling interval to the alerts there are now. version is that of desired before this
// input: what an input changes counts as one change.
func (t *Twin) repace(s *step, version uint64) (changed bool) {
	w := t.wishes
	if !bytes.Contains(w.desired, []byte(`"`+samplingKey+`":`)) {
		return false
	}
	all, _ := decodeObject(w.desired)
	if !pace(all, t.book.Firing()) {
		return false
	}
	w.desired, w.changed, w.took = appendCanonical(nil, all), s.now, -1
	if w.version == version {
		w.version++
	}
	return true
}

// standing is what settle compares with.
type standing struct{ desired, reported uint64 }

// settle draws the consequences of a logged input for what is desired: the pace, since when the device diverges,
// and whether it has to be told something.
func (t *Twin) settle(s *step, before standing) {
	w := t.wishes
	if w == nil || w.version == 0 {
		return
	}
	wanted := w.version != before.desired
	if !wanted && t.reportedVersion == before.reported && len(s.out.Transitions) == 0 && !s.arrived {
		return
	}
	for range 2 { // that the device diverges may be an alert, too; but they must not chase each other
		seen := len(s.out.Transitions)
		if seen > 0 && t.repace(s, before.desired) {
			wanted = true
		}
		if wanted || t.reportedVersion != before.reported {
			t.converge(s)
		}
		if len(s.out.Transitions) == seen {
			break
		}
	}
	delta := t.AppendDelta(s.out.scratch[:0])
	told := xxhash.Sum64(append(append(delta, 0), w.desired...))
	s.out.scratch = delta
	s.out.Tell = told != w.told || s.arrived
	w.told = told
}

// converge notes since when the device diverges, and how long it took.
func (t *Twin) converge(s *step) {
	w := t.wishes
	switch diverges := t.diverges(); {
	case diverges && w.diverged == 0:
		w.diverged, w.took = s.now, -1
	case diverges:
	case w.diverged != 0:
		w.took, w.diverged = s.now-max(w.diverged, w.changed), 0
	case w.took < 0: // it was so already
		w.took = 0
	}
	if !t.quarantined {
		t.book.Diverged(s.rules, t.id, w.diverged, s.now, &s.out.Transitions)
	}
}

func (w *wishes) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = appendText(b, string(w.desired))
	for _, n := range [...]uint64{
		w.version, w.tagsVersion, uint64(w.changed), uint64(w.diverged), uint64(w.took), w.told, uint64(len(w.tags)),
	} {
		b = le.AppendUint64(b, n)
	}
	for _, key := range slices.Sorted(maps.Keys(w.tags)) {
		b = appendText(appendText(b, key), w.tags[key])
	}
	return b
}
