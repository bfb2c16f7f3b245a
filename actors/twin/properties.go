package twin

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

const (
	maxReported = 64 << 10 // bytes of all reported properties of a twin
	maxRemoved  = 256      // how many removed keys are remembered, to keep older patches from reviving them
)

// stream is a source of patches that has an order of its own.
type stream uint8

const (
	byArrival stream = iota // only received-at orders them
	bySample                // in numbered samples: by (boot, seq)
	byTime                  // in unnumbered samples with a time: by that
	byPatch                 // numbered patches: by (boot, seq) of their own
)

// stamp says how new a patch is.
type stamp struct {
	receivedAt int64
	boot, seq  uint64
	stream     stream
}

// covers says whether a patch of stamp a may overwrite what one of stamp b wrote: by the order of
// their stream if they share one, by received-at otherwise (protocol rule G4).
func (a stamp) covers(b stamp) bool {
	if a.stream == b.stream && a.stream != byArrival {
		return a.boot > b.boot || a.boot == b.boot && a.seq >= b.seq
	}
	return a.receivedAt >= b.receivedAt
}

// properties are the reported properties, one property for each top-level key.
type properties struct {
	list     []property // by key
	size     int        // bytes of all text
	reserved int        // bytes of patches that wait
}

type property struct {
	key   string
	text  []byte // `"key":value`, canonical; nil: removed
	value int    // where value begins in text
	stamp stamp
}

// edit is a property as a patch leaves it.
type edit struct {
	property
	at     int // index in list, or where it belongs
	exists bool
}

// Reported is the reported properties as compact JSON, members in byte order of name.
func (t *Twin) Reported() []byte { return t.AppendReported(nil) }

// AppendReported appends what Reported returns.
func (t *Twin) AppendReported(b []byte) []byte {
	b = append(b, '{')
	if t.props != nil {
		first := true
		for i := range t.props.list {
			if text := t.props.list[i].text; text != nil {
				if !first {
					b = append(b, ',')
				}
				b, first = append(b, text...), false
			}
		}
	}
	return append(b, '}')
}

// plan works out what a patch would change, key by key, ignoring keys that something newer wrote.
func (p *properties) plan(patch map[string]any, st stamp) []edit {
	edits := make([]edit, 0, len(patch))
	for _, key := range slices.Sorted(maps.Keys(patch)) {
		at, exists := p.search(key)
		e := edit{property: property{key: key, stamp: st}, at: at, exists: exists}
		var old any
		if exists {
			was := &p.list[at]
			if !st.covers(was.stamp) {
				continue
			}
			if was.text != nil {
				old, _ = decodeJSON(was.text[was.value:]) // canonical JSON, written by set
			}
		}
		if v := patch[key]; v != nil {
			e.set(mergePatch(old, v))
		}
		edits = append(edits, e)
	}
	return edits
}

func (e *property) set(v any) {
	e.text = append(appendCanonical(nil, e.key), ':')
	e.value = len(e.text)
	e.text = appendCanonical(e.text, v)
}

// growth is by how many bytes the edits let the properties grow.
func (p *properties) growth(edits []edit) int {
	n := 0
	for i := range edits {
		n += cost(edits[i].text)
		if edits[i].exists {
			n -= cost(p.list[edits[i].at].text)
		}
	}
	return n
}

// cost counts the comma too.
func cost(text []byte) int {
	if text == nil {
		return 0
	}
	return len(text) + 1
}

// commit carries out a plan. touched: anything at all is different, changed: a value is.
func (p *properties) commit(edits []edit) (touched, changed bool) {
	p.size += p.growth(edits)
	grown := 0
	for i := range edits {
		e := &edits[i]
		e.at += grown
		if !e.exists {
			p.list = slices.Insert(p.list, e.at, e.property)
			grown++
			touched, changed = true, changed || e.text != nil
			continue
		}
		was := &p.list[e.at]
		differs := !bytes.Equal(was.text, e.text) || (was.text == nil) != (e.text == nil)
		touched, changed = touched || differs || was.stamp != e.stamp, changed || differs
		*was = e.property
	}
	p.forget()
	return touched, changed
}

// forget drops the removed keys with the oldest stamps when there are too many.
func (p *properties) forget() {
	removed := 0
	for i := range p.list {
		if p.list[i].text == nil {
			removed++
		}
	}
	for ; removed > maxRemoved; removed-- {
		oldest := -1
		for i := range p.list {
			if p.list[i].text == nil && (oldest < 0 || p.list[i].stamp.receivedAt < p.list[oldest].stamp.receivedAt) {
				oldest = i
			}
		}
		p.list = slices.Delete(p.list, oldest, oldest+1)
	}
}

func (p *properties) search(key string) (int, bool) {
	return slices.BinarySearchFunc(p.list, key, func(q property, key string) int { return strings.Compare(q.key, key) })
}

func (p *properties) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(len(p.list)))
	for i := range p.list {
		q := &p.list[i]
		b = appendText(b, q.key)
		b = appendBool(b, q.text != nil)
		b = appendText(b, string(q.text))
		b = le.AppendUint64(b, uint64(q.stamp.receivedAt))
		b = le.AppendUint64(b, q.stamp.boot)
		b = le.AppendUint64(b, q.stamp.seq)
		b = append(b, byte(q.stamp.stream))
	}
	return b
}
