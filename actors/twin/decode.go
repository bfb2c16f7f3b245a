package twin

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/state"
)

// Decode makes t the twin of a device that was encoded, whatever it was before. names turns the
// bytes of a name into a string that may be shared with other twins; nil: this twin gets its own.
// The twin keeps nothing of encoded. After an error it is good for nothing.
func (t *Twin) Decode(id string, encoded []byte, names func([]byte) string) error {
	in := state.NewReader(encoded, names)
	*t = Twin{id: id, metrics: t.metrics[:0]}
	switch version := in.Byte(); {
	case in.Err() != nil:
	case version < 1 || version > EncodingVersion:
		in.Fail("version %d is not known, this build reads up to %d: use a newer build", version, EncodingVersion)
	default:
		t.decode(&in, version)
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("state of twin %s: %w", id, err)
	}
	if in.Len() > 0 {
		return fmt.Errorf("state of twin %s: %d bytes left over", id, in.Len())
	}
	return nil
}

func (t *Twin) decode(in *state.Reader, version byte) {
	flags := in.Byte()
	if version == 1 && flags&(isQuarantined|hasMore) != 0 {
		in.Fail("version %d with flags %#x", version, flags)
	}
	more, tags := decodeMore(in, flags)
	t.online, t.quarantined = flags&hasOnline != 0, flags&isQuarantined != 0
	t.lastSeen = in.Int()
	t.book.Decode(in, t.lastSeen)
	t.lastData = t.lastSeen + in.Int()
	t.created = t.lastSeen + in.Int()
	t.version, t.reportedVersion = in.Uint(), in.Uint()
	t.digest, t.setDigest = in.Fixed(), in.Fixed()
	t.decodeCounters(in)
	t.decodeMetrics(in)
	t.numbers.Decode(in, func(in *state.Reader, boot, seq uint64) *waiting {
		w := t.decodeWaiting(in)
		w.sample.Numbered, w.sample.Boot, w.sample.Seq = true, boot, seq
		return w
	})
	if flags&inOrder != 0 {
		boot, next := t.numbers.Expected()
		t.boot, t.seq = boot, next-1
	} else {
		t.boot, t.seq = in.Uint(), in.Uint()
	}
	if flags&hasTimed != 0 {
		t.timed = &timed{}
		t.timed.decode(in, t)
	}
	if flags&hasProps != 0 {
		t.props = &properties{}
		t.props.decode(in, t.lastSeen)
	}
	if flags&hasPatches != 0 {
		t.patches = &patches{}
		t.patches.numbers.Decode(in, func(in *state.Reader, _, _ uint64) *heldPatch { return decodePatch(in, t.lastSeen) })
	}
	if flags&hasStatus != 0 {
		t.status = &status{}
		t.status.decode(in, t.lastSeen)
	}
	if more&hasWishes != 0 {
		t.wishes = &wishes{tags: tags}
		t.wishes.decode(in, t.lastSeen)
		t.book.SetTags(tags)
	}
	if more&hasDeath != 0 {
		t.death = &death{}
		t.death.decode(in, t.lastSeen, more&isDeleted != 0)
	}
	t.reserveAll(in)
}

// decodeMore reads what says that a twin has more than most, and its tags.
func decodeMore(in *state.Reader, flags byte) (more byte, tags map[string]string) {
	if flags&hasMore == 0 {
		return 0, nil
	}
	more = in.Byte()
	if more == 0 || more >= moreEnd || more&isDeleted != 0 && more&hasDeath == 0 || more&hasTags != 0 && more&hasWishes == 0 {
		in.Fail("more flags %#x", more)
		return 0, nil
	}
	if more&hasTags != 0 {
		n := in.Count(2, maxTags)
		tags = make(map[string]string, n)
		for range n {
			key := in.Name()
			tags[key] = in.Name()
		}
		if len(tags) != n || n == 0 {
			in.Fail("%d different of %d tags", len(tags), n)
		}
	}
	return more, tags
}

func (w *wishes) decode(in *state.Reader, near int64) {
	w.desired = in.Bytes()
	w.version, w.tagsVersion = in.Uint(), in.Uint()
	w.changed = near + in.Int()
	if in.Byte() != 0 {
		w.diverged = near + in.Int()
	}
	w.took, w.told = in.Int(), in.Fixed()
	if in.Err() == nil && (!json.Valid(w.desired) || w.desired[0] != '{') {
		in.Fail("desired is no JSON object")
	}
}

func (d *death) decode(in *state.Reader, near int64, deleted bool) {
	d.bare = in.Byte() != 0
	if deleted {
		d.at = near + in.Int()
	}
	d.lives, d.rows = in.Uint(), in.Uint()
}

// reserveAll keeps room for all patches that wait, as reserve did for each.
func (t *Twin) reserveAll(in *state.Reader) {
	n := 0
	t.numbers.Each(func(w *waiting) { n += w.size })
	if t.timed != nil {
		for _, w := range t.timed.held {
			n += w.size
		}
	}
	if t.patches != nil {
		t.patches.numbers.Each(func(h *heldPatch) { n += h.size })
	}
	if t.props == nil && n > 0 {
		in.Fail("%d bytes of patches wait for no properties", n)
		return
	}
	t.reserve(n)
}

func (t *Twin) decodeCounters(in *state.Reader) {
	has := in.Byte()
	counts := t.counts()
	for i, n := range counts {
		if has&(1<<i) != 0 {
			*n = in.Uint()
		}
	}
	if has&(1<<len(counts)) != 0 {
		t.duplicates = uint32(min(in.Uint(), math.MaxUint32))
	}
}

func (t *Twin) decodeMetrics(in *state.Reader) {
	n := in.Count(2, MaxMetrics)
	if n > cap(t.metrics) {
		t.metrics = make([]metric, 0, n)
	}
	c := baseline.Default()
	for range n {
		t.metrics = append(t.metrics, metric{z: math.NaN(), score: math.NaN()})
		m := &t.metrics[len(t.metrics)-1]
		m.decode(in, &c, t.lastSeen)
		if before := len(t.metrics) - 2; before >= 0 && t.metrics[before].name >= m.name {
			in.Fail("metric %q behind %q", m.name, t.metrics[before].name)
		}
	}
}

func (m *metric) decode(in *state.Reader, c *baseline.Config, near int64) {
	m.name = in.Name()
	flags := in.Byte()
	if m.known = flags&metricKnown != 0; !m.known {
		return
	}
	m.base.Decode(in, near)
	if flags&metricSettled != 0 {
		m.value, m.time = m.base.Newest()
	} else {
		m.value, m.time = in.Float(), near+in.Int()
	}
	m.z = asNumber(in, flags>>metricZ)
	if flags>>metricZ&asPlain == asPlain {
		m.z, _ = m.plainZ(c)
	}
	m.score = asNumber(in, flags>>metricScore)
	if flags>>metricEnd != 0 || flags>>metricScore&asPlain == asPlain {
		in.Fail("metric %q with flags %#x", m.name, flags)
	}
}

func asNumber(in *state.Reader, how byte) float64 {
	switch how & asPlain {
	case asZero:
		return 0
	case asIs:
		return in.Float()
	default:
		return math.NaN()
	}
}

func (t *Twin) decodeWaiting(in *state.Reader) *waiting {
	const hasTime, hasReported = 1, 2
	flags := in.Byte()
	w := &waiting{receivedAt: t.lastSeen + in.Int()}
	sm := &w.sample
	sm.Timed = flags&hasTime != 0
	sm.Time = w.receivedAt + in.Int()
	if n := in.Count(1+8, MaxMetrics); n > 0 {
		sm.Readings = make([]Reading, n)
		for i, least := 0, 0; i < n; i++ {
			at := int(in.Byte())
			if at < least || at >= len(t.metrics) {
				in.Fail("held reading of metric %d of %d", at, len(t.metrics))
				return w
			}
			sm.Readings[i], least = Reading{Name: t.metrics[at].name, Value: in.Float()}, at+1
		}
	}
	if flags&hasReported != 0 {
		sm.Reported, w.size = in.Bytes(), decodeSize(in)
	}
	return w
}

func decodePatch(in *state.Reader, near int64) *heldPatch {
	return &heldPatch{text: in.Bytes(), receivedAt: near + in.Int(), size: decodeSize(in)}
}

// decodeSize reads what a patch reserves.
func decodeSize(in *state.Reader) int {
	n := in.Uint()
	if n > maxReported {
		in.Fail("a patch of %d bytes waits", n)
		return 0
	}
	return int(n)
}

func (q *timed) decode(in *state.Reader, t *Twin) {
	q.began, q.last = in.Byte() != 0, t.lastSeen+in.Int()
	if n := in.Count(8, maxRecent); n > 0 {
		q.recent = make([]uint64, n)
		for i := range q.recent {
			q.recent[i] = in.Fixed()
		}
	}
	for range in.Count(4, maxTimed) {
		due := t.lastSeen + in.Int()
		w := t.decodeWaiting(in)
		w.due = due
		if last := len(q.held) - 1; last >= 0 && q.held[last].sample.Time < w.sample.Time {
			in.Fail("held samples out of order of time")
		}
		if in.Err() != nil {
			return
		}
		q.held = append(q.held, w)
		if len(q.held) == 1 || due < q.first {
			q.first = due
		}
	}
}

func (p *properties) decode(in *state.Reader, near int64) {
	for range in.Count(3, maxReported) {
		q := property{key: in.Text()}
		kind := in.Byte()
		if kind&1 != 0 {
			q.text, q.value = member(q.key, in)
		}
		q.stamp = stamp{stream: stream(kind >> 1), receivedAt: near + in.Int()}
		if q.stamp.stream != byArrival {
			q.stamp.boot, q.stamp.seq = in.Uint(), in.Uint()
		}
		if last := len(p.list) - 1; q.stamp.stream > byPatch || last >= 0 && p.list[last].key >= q.key {
			in.Fail("property %q of stream %d", q.key, q.stamp.stream)
		}
		if in.Err() != nil {
			return
		}
		p.size += cost(q.text)
		p.list = append(p.list, q)
	}
	p.list = slices.Clip(p.list)
}

// member reads a value and gives `"key":value`.
func member(key string, in *state.Reader) (text []byte, value int) {
	v := in.Bytes()
	text = make([]byte, 0, len(key)+len(v)+3)
	if plain(key) {
		text = append(append(append(text, '"'), key...), '"', ':')
	} else {
		text = append(appendCanonical(text, key), ':')
	}
	return append(text, v...), len(text)
}

// plain says that JSON needs no escapes for s.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func (l *status) decode(in *state.Reader, near int64) {
	flags := in.Byte()
	l.Online, l.HasBoot, l.HasSession = flags&1 != 0, flags&2 != 0, flags&4 != 0
	l.Boot, l.Session, l.receivedAt = in.Uint(), in.Uint(), near+in.Int()
}
