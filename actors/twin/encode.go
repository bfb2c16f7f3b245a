package twin

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/state"
)

// EncodingVersion is the first byte of an encoded twin. Decode reads every version there ever was;
// testdata holds examples. Version 2 added the quarantine.
const EncodingVersion = 2

// What an encoded twin holds.
const (
	hasOnline = 1 << iota
	hasTimed
	hasProps
	hasPatches
	hasStatus
	inOrder // boot and seq are those before the next number of the sequencer
	isQuarantined
	hasMore // one more byte says what
)

// What more an encoded twin may hold.
const (
	hasTags = 1 << iota // right behind that byte, for those who only look at the front
	hasWishes
	hasDeath
	isDeleted
	moreEnd // none is as high
)

// What an encoded metric holds. Below metricZ and metricScore stand how these two are stored.
const (
	metricKnown   = 1 << iota
	metricSettled // value and time are the baseline's newest
	metricZ       = iota
	metricScore   = metricZ + 2
	metricEnd     = metricScore + 2
)

// How z and score are stored.
const (
	asNone = iota // NaN
	asIs          // eight bytes
	asZero
	asPlain // of z: it follows from the window
)

// Encode appends the twin for Decode. The encoding is exact: a decoded twin does and shows what this
// one would, the duplicates not yet taken included. The id is not part of it.
func (t *Twin) Encode(b []byte) []byte {
	flags := flag(t.online, hasOnline) | flag(t.timed != nil, hasTimed) | flag(t.props != nil, hasProps) |
		flag(t.patches != nil, hasPatches) | flag(t.status != nil, hasStatus) | flag(t.quarantined, isQuarantined)
	more := flag(len(t.Tags()) > 0, hasTags) | flag(t.wishes != nil, hasWishes) | flag(t.death != nil, hasDeath) | flag(t.Deleted(), isDeleted)
	boot, next := t.numbers.Expected()
	if t.boot == boot && t.seq+1 == next {
		flags |= inOrder
	}
	b = append(b, EncodingVersion, flags|flag(more != 0, hasMore))
	if more != 0 {
		b = append(b, more)
	}
	if more&hasTags != 0 {
		b = encodeTags(b, t.Tags())
	}
	b = binary.AppendVarint(b, t.lastSeen)
	b = t.book.Encode(b, t.lastSeen)
	b = binary.AppendVarint(b, t.lastData-t.lastSeen)
	b = binary.AppendVarint(b, t.created-t.lastSeen)
	b = binary.AppendUvarint(b, t.version)
	b = binary.AppendUvarint(b, t.reportedVersion)
	b = binary.LittleEndian.AppendUint64(b, t.digest)
	b = binary.LittleEndian.AppendUint64(b, t.setDigest)
	b = t.encodeCounters(b)
	b = binary.AppendUvarint(b, uint64(len(t.metrics)))
	c := baseline.Default()
	for i := range t.metrics {
		b = t.metrics[i].encode(b, &c, t.lastSeen)
	}
	b = t.numbers.Encode(b, t.encodeWaiting)
	if flags&inOrder == 0 {
		b = binary.AppendUvarint(b, t.boot)
		b = binary.AppendUvarint(b, t.seq)
	}
	if t.timed != nil {
		b = t.timed.encode(b, t)
	}
	if t.props != nil {
		b = t.props.encode(b, t.lastSeen)
	}
	if t.patches != nil {
		b = t.patches.numbers.Encode(b, func(b []byte, h *heldPatch) []byte { return h.encode(b, t.lastSeen) })
	}
	if t.status != nil {
		b = t.status.encode(b, t.lastSeen)
	}
	if t.wishes != nil {
		b = t.wishes.encode(b, t.lastSeen)
	}
	if t.death != nil {
		b = t.death.encode(b, t.lastSeen)
	}
	return b
}

func encodeTags(b []byte, tags map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(tags)))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		b = state.AppendText(state.AppendText(b, key), tags[key])
	}
	return b
}

// encode appends all but the tags, which stand in front.
func (w *wishes) encode(b []byte, near int64) []byte {
	b = state.AppendText(b, w.desired)
	b = binary.AppendUvarint(b, w.version)
	b = binary.AppendUvarint(b, w.tagsVersion)
	b = binary.AppendVarint(b, w.changed-near)
	b = append(b, flag(w.diverged != 0, 1))
	if w.diverged != 0 {
		b = binary.AppendVarint(b, w.diverged-near)
	}
	b = binary.AppendVarint(b, w.took)
	return binary.LittleEndian.AppendUint64(b, w.told)
}

func (d *death) encode(b []byte, near int64) []byte {
	b = append(b, flag(d.bare, 1))
	if d.at != 0 {
		b = binary.AppendVarint(b, d.at-near)
	}
	b = binary.AppendUvarint(b, d.lives)
	return binary.AppendUvarint(b, d.rows)
}

// EncodeCheckpoint is Encode without the duplicates that were not taken yet: the twin's next record
// carries them, and a restore that replays it would count them twice.
func (t *Twin) EncodeCheckpoint(b []byte) []byte {
	n := uint32(min(uint64(t.duplicates), t.counters.Duplicate)) // fewer behind a delete
	t.counters.Duplicate, t.duplicates = t.counters.Duplicate-uint64(n), t.duplicates-n
	b = t.Encode(b)
	t.counters.Duplicate, t.duplicates = t.counters.Duplicate+uint64(n), t.duplicates+n
	return b
}

// counts are the counters in the order in which they are stored.
func (t *Twin) counts() [7]*uint64 {
	c := &t.counters
	return [...]*uint64{&c.Applied, &c.Late, &c.Duplicate, &c.DeadLettered, &c.Held, &c.Gaps, &c.Missing}
}

// encodeCounters appends which counters are not 0, and those.
func (t *Twin) encodeCounters(b []byte) []byte {
	at := len(b)
	b = append(b, 0)
	counts := t.counts()
	for i, n := range counts {
		if *n != 0 {
			b[at] |= 1 << i
			b = binary.AppendUvarint(b, *n)
		}
	}
	if t.duplicates != 0 {
		b[at] |= 1 << len(counts)
		b = binary.AppendUvarint(b, uint64(t.duplicates))
	}
	return b
}

func (m *metric) encode(b []byte, c *baseline.Config, near int64) []byte {
	b = state.AppendText(b, m.name)
	if !m.known { // only late samples had it
		return append(b, 0)
	}
	flags := byte(metricKnown)
	x, at := m.base.Newest()
	if same(m.value, x) && m.time == at {
		flags |= metricSettled
	}
	z, score := asIs, asIs
	switch plain, ok := m.plainZ(c); {
	case math.IsNaN(m.z):
		z = asNone
	case ok && same(m.z, plain):
		z = asPlain
	case same(m.z, 0):
		z = asZero
	}
	switch {
	case math.IsNaN(m.score):
		score = asNone
	case same(m.score, 0):
		score = asZero
	}
	b = append(b, flags|byte(z)<<metricZ|byte(score)<<metricScore)
	b = m.base.Encode(b, near)
	if flags&metricSettled == 0 {
		b = state.AppendFloat(b, m.value)
		b = binary.AppendVarint(b, m.time-near)
	}
	if z == asIs {
		b = state.AppendFloat(b, m.z)
	}
	if score == asIs {
		b = state.AppendFloat(b, m.score)
	}
	return b
}

// plainZ is the z of the newest sample as the window gives it, where that has a spread.
func (m *metric) plainZ(c *baseline.Config) (z float64, ok bool) {
	s := m.base.Before(c)
	x, _ := m.base.Newest()
	return (x - s.Mean) / s.Stddev, s.Stddev > 0
}

// encodeWaiting appends a sample that waits; its number, if it has one, stands before it. Its metrics
// are registered, so that their places name them.
func (t *Twin) encodeWaiting(b []byte, w *waiting) []byte {
	const hasTime, hasReported = 1, 2
	sm := &w.sample
	b = append(b, flag(sm.Timed, hasTime)|flag(sm.Reported != nil, hasReported))
	b = binary.AppendVarint(b, w.receivedAt-t.lastSeen)
	b = binary.AppendVarint(b, sm.Time-w.receivedAt)
	b = binary.AppendUvarint(b, uint64(len(sm.Readings)))
	at := 0
	for _, r := range sm.Readings {
		for t.metrics[at].name != r.Name {
			at++
		}
		b = state.AppendFloat(append(b, byte(at)), r.Value)
	}
	if sm.Reported != nil {
		b = state.AppendText(b, sm.Reported)
		b = binary.AppendUvarint(b, uint64(w.size))
	}
	return b
}

func (q *timed) encode(b []byte, t *Twin) []byte {
	b = append(b, flag(q.began, 1))
	b = binary.AppendVarint(b, q.last-t.lastSeen)
	b = binary.AppendUvarint(b, uint64(len(q.recent)))
	for _, h := range slices.Concat(q.recent[q.oldest:], q.recent[:q.oldest]) {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	b = binary.AppendUvarint(b, uint64(len(q.held)))
	for _, w := range q.held {
		b = binary.AppendVarint(b, w.due-t.lastSeen)
		b = t.encodeWaiting(b, w)
	}
	return b
}

func (p *properties) encode(b []byte, near int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.list)))
	for i := range p.list {
		q := &p.list[i]
		b = state.AppendText(b, q.key)
		b = append(b, byte(q.stamp.stream)<<1|flag(q.text != nil, 1))
		if q.text != nil {
			b = state.AppendText(b, q.text[q.value:])
		}
		b = binary.AppendVarint(b, q.stamp.receivedAt-near)
		if q.stamp.stream != byArrival {
			b = binary.AppendUvarint(b, q.stamp.boot)
			b = binary.AppendUvarint(b, q.stamp.seq)
		}
	}
	return b
}

func (h *heldPatch) encode(b []byte, near int64) []byte {
	b = state.AppendText(b, h.text)
	b = binary.AppendVarint(b, h.receivedAt-near)
	return binary.AppendUvarint(b, uint64(h.size))
}

func (l *status) encode(b []byte, near int64) []byte {
	b = append(b, flag(l.Online, 1)|flag(l.HasBoot, 2)|flag(l.HasSession, 4))
	b = binary.AppendUvarint(b, l.Boot)
	b = binary.AppendUvarint(b, l.Session)
	return binary.AppendVarint(b, l.receivedAt-near)
}

func flag(set bool, f byte) byte {
	if set {
		return f
	}
	return 0
}

func same(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
