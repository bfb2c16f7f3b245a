package twin

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/doppel-iot/doppel/actors/alert"
)

// Hash is equal for equal states and, but for chance, different for different ones. It covers
// everything that can decide future behaviour or be read, but not the duplicates, which are lost in
// a crash by design.
func (t *Twin) Hash() uint64 { return xxhash.Sum64(t.appendState(make([]byte, 0, 1<<10))) }

func (t *Twin) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = appendText(b, t.id)
	c := &t.counters
	for _, n := range [...]uint64{
		t.version, t.reportedVersion, t.boot, t.seq, t.digest, t.setDigest,
		uint64(t.created), uint64(t.lastSeen), uint64(t.lastData),
		c.Applied, c.Late, c.DeadLettered, c.Held, c.Gaps, c.Missing,
	} {
		b = le.AppendUint64(b, n)
	}
	b = appendBool(b, t.online)
	b = t.numbers.AppendState(b, func(b []byte, w *waiting) []byte { return w.appendState(b) })
	b = le.AppendUint64(b, uint64(len(t.metrics)))
	for i := range t.metrics {
		b = t.metrics[i].appendState(b)
	}
	b = appendBook(b, t.book.Memory())
	if b = appendBool(b, t.timed != nil); t.timed != nil {
		b = t.timed.appendState(b)
	}
	if b = appendBool(b, t.props != nil); t.props != nil {
		b = t.props.appendState(b)
	}
	if b = appendBool(b, t.patches != nil); t.patches != nil {
		b = t.patches.numbers.AppendState(b, func(b []byte, h *heldPatch) []byte { return h.appendState(b) })
	}
	if b = appendBool(b, t.status != nil); t.status != nil {
		b = t.status.appendState(b)
	}
	if t.quarantined { // nothing stands here else, so that the hashes of old files hold
		b = append(b, 1)
	}
	if t.wishes != nil {
		b = t.wishes.appendState(append(b, 2))
	}
	if t.death != nil {
		b = t.death.appendState(append(b, 3))
	}
	return b
}

func (m *metric) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = appendText(b, m.name)
	b = appendBool(b, m.known)
	for _, f := range [...]float64{m.value, m.z, m.score} {
		b = appendFloat(b, f)
	}
	b = le.AppendUint64(b, uint64(m.time))
	return m.base.AppendState(b)
}

func appendBook(b []byte, m alert.Memory) []byte {
	le := binary.LittleEndian
	for _, n := range [...]int64{m.LastSeen, m.Since, m.Interval, m.Due, int64(m.Seen), int64(len(m.Tracks))} {
		b = le.AppendUint64(b, uint64(n))
	}
	b = appendBool(b, m.Offline)
	for i := range m.Tracks {
		k := &m.Tracks[i]
		b = appendText(appendText(b, k.Rule), k.Metric)
		for _, n := range [...]uint64{k.Count, uint64(k.Streak), uint64(k.Breach), uint64(k.PreviousTime)} {
			b = le.AppendUint64(b, n)
		}
		b = appendFloat(b, k.PreviousValue)
		b = appendBool(appendBool(b, k.Reads), k.Rated)
		if b = appendBool(b, k.Open != nil); k.Open != nil {
			b = appendAlert(b, k.Open)
		}
		b = appendMore(b, k)
	}
	if m.Diverged != 0 {
		b = le.AppendUint64(b, uint64(m.Diverged))
	}
	return b
}

// appendMore appends what most tracks do not have: of those nothing stands here, so that the hashes of old
// files hold.
func appendMore(b []byte, k *alert.Track) []byte {
	le := binary.LittleEndian
	for _, at := range k.Fires {
		b = le.AppendUint64(b, uint64(at))
	}
	a := k.Open
	if a == nil {
		return b
	}
	entered := a.CreateTime
	if a.State == alert.Firing {
		entered = a.FireTime
	}
	texts := a.AcknowledgedBy != "" || a.AcknowledgeComment != "" || a.Silence != ""
	numbers := [...]int64{k.Entered - entered, int64(k.Base) - int64(a.Severity), k.Below, k.Calm, k.Calmed, a.AcknowledgeTime, a.EscalateTime}
	if numbers == [len(numbers)]int64{} && !texts && !a.Shadow && !a.Flapping {
		return b
	}
	for _, n := range numbers {
		b = le.AppendUint64(b, uint64(n))
	}
	for _, s := range [...]string{a.AcknowledgedBy, a.AcknowledgeComment, a.Silence} {
		b = appendText(b, s)
	}
	return appendBool(appendBool(b, a.Shadow), a.Flapping)
}

func appendAlert(b []byte, a *alert.Alert) []byte {
	le := binary.LittleEndian
	for _, s := range [...]string{a.Rule, a.Metric, a.Reason} {
		b = appendText(b, s)
	}
	for _, n := range [...]uint64{a.ID, a.RuleVersion, a.BaselineCount, a.Boot, a.Seq} {
		b = le.AppendUint64(b, n)
	}
	for _, n := range [...]int64{a.CreateTime, a.FireTime, a.ResolveTime, a.UpdateTime} {
		b = le.AppendUint64(b, uint64(n))
	}
	for _, f := range [...]float64{a.Value, a.Score, a.BaselineMean, a.BaselineStddev} {
		b = appendFloat(b, f)
	}
	return append(b, byte(a.Severity), byte(a.State))
}

func (w *waiting) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = appendContent(b, &w.sample)
	b = appendBool(b, w.sample.Numbered)
	b = appendBool(b, w.sample.Timed)
	b = appendText(b, string(w.sample.Reported))
	b = le.AppendUint64(b, uint64(w.receivedAt))
	return le.AppendUint64(b, uint64(w.due))
}

func (l *status) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = appendBool(b, l.Online)
	b = appendBool(b, l.HasBoot)
	b = appendBool(b, l.HasSession)
	b = le.AppendUint64(b, l.Boot)
	b = le.AppendUint64(b, l.Session)
	return le.AppendUint64(b, uint64(l.receivedAt))
}

func appendText(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendFloat makes every NaN the same.
func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}
