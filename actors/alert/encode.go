package alert

import (
	"encoding/binary"
	"math"

	"github.com/doppel-iot/doppel/actors/state"
)

// What an encoded book begins with.
const (
	bookOffline = 1 << iota
	bookSince
	bookDue
	bookSeen
	bookDiverged
)

// What an encoded tracker begins with.
const (
	trackOpen = 1 << iota
	trackPoint
	trackReads
	trackFired
	trackBreach
	trackMore
)

// What more an encoded tracker may hold, each bit for a part that stands there in this order.
const (
	moreFires = 1 << iota
	moreEntered
	moreEscalated // base and when
	moreBelow
	moreCalm
	moreAcknowledged
	moreSilence
	moreShadow   // the bit says it
	moreFlapping // the bit says it
)

// numbersAt is where, in the first byte of an encoded alert, severity and state end and the list of
// its numbers that are not 0 begins.
const numbersAt = 4

// Encode appends all that the Book remembers for Decode, but for rules and tags. near is a time
// likely to be near its times.
func (b *Book) Encode(dst []byte, near int64) []byte {
	flags := flag(b.offline, bookOffline) | flag(b.since != 0, bookSince) | flag(b.due != 0, bookDue) | flag(b.seen != 0, bookSeen) |
		flag(b.diverged != 0, bookDiverged)
	dst = append(dst, flags)
	if b.seen != 0 {
		dst = append(dst, byte(b.seen))
		dst = binary.AppendVarint(dst, b.lastSeen-near)
		dst = binary.AppendVarint(dst, b.interval)
	}
	if b.since != 0 {
		dst = binary.AppendVarint(dst, b.since-near)
	}
	if b.due != 0 {
		dst = binary.AppendVarint(dst, b.due-near)
	}
	if b.diverged != 0 {
		dst = binary.AppendVarint(dst, b.diverged-near)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.trackers)))
	for i := range b.trackers {
		dst = b.trackers[i].encode(dst, near)
	}
	return dst
}

func (t *tracker) encode(dst []byte, near int64) []byte {
	e := t.open
	flags := flag(t.previous != nil, trackPoint)
	if e != nil {
		flags |= trackOpen | flag(e.reads, trackReads) | flag(e.alert.FireTime != 0, trackFired) | flag(e.breach != 0, trackBreach)
	}
	more := t.more()
	dst = append(dst, flags|flag(more != 0, trackMore))
	dst = state.AppendText(dst, t.rule)
	dst = state.AppendText(dst, t.metric)
	dst = binary.AppendUvarint(dst, t.count)
	if p := t.previous; p != nil {
		dst = binary.AppendVarint(dst, p.time-near)
		dst = state.AppendFloat(dst, p.value)
	}
	if e != nil {
		dst = e.encode(dst, near)
	}
	if more != 0 {
		dst = t.encodeMore(dst, more, near)
	}
	return dst
}

// more says what an encoded tracker holds beyond what most do.
func (t *tracker) more() (bits uint64) {
	set := func(there bool, bit uint64) {
		if there {
			bits |= bit
		}
	}
	set(len(t.fires) > 0, moreFires)
	if e := t.open; e != nil {
		a := &e.alert
		set(e.entered != a.entered(), moreEntered)
		set(a.EscalateTime != 0, moreEscalated)
		set(e.below != 0, moreBelow)
		set(e.calmed != 0, moreCalm)
		set(a.AcknowledgeTime != 0 || a.AcknowledgedBy != "" || a.AcknowledgeComment != "", moreAcknowledged)
		set(a.Silence != "", moreSilence)
		set(a.Shadow, moreShadow)
		set(a.Flapping, moreFlapping)
	}
	return bits
}

// entered is when an alert came into its state, by the time of its evidence.
func (a *Alert) entered() int64 {
	if a.State == Firing {
		return a.FireTime
	}
	return a.CreateTime
}

func (t *tracker) encodeMore(dst []byte, more uint64, near int64) []byte {
	dst = binary.AppendUvarint(dst, more)
	if more&moreFires != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(t.fires)))
		for _, at := range t.fires {
			dst = binary.AppendVarint(dst, at-near)
		}
	}
	e := t.open
	if e == nil {
		return dst
	}
	a := &e.alert
	if more&moreEntered != 0 {
		dst = binary.AppendVarint(dst, e.entered-near)
	}
	if more&moreEscalated != 0 {
		dst = binary.AppendVarint(append(dst, byte(e.base)), a.EscalateTime-near)
	}
	if more&moreBelow != 0 {
		dst = binary.AppendVarint(dst, e.below-near)
	}
	if more&moreCalm != 0 {
		dst = binary.AppendVarint(dst, e.calm-near)
		dst = binary.AppendVarint(dst, e.calmed-near)
	}
	if more&moreAcknowledged != 0 {
		dst = binary.AppendVarint(dst, a.AcknowledgeTime-near)
		dst = state.AppendText(state.AppendText(dst, a.AcknowledgedBy), a.AcknowledgeComment)
	}
	if more&moreSilence != 0 {
		dst = state.AppendText(dst, a.Silence)
	}
	return dst
}

// encode appends an open alert; rule and metric are its tracker's, and it was never resolved.
func (e *episode) encode(dst []byte, near int64) []byte {
	a := &e.alert
	kind := byte(a.Severity)&3 | byte(a.State)&3<<2
	numbers := a.numbers()
	for i, f := range numbers {
		kind |= flag(math.Float64bits(*f) != 0, 1<<(numbersAt+i))
	}
	dst = append(dst, kind)
	dst = binary.LittleEndian.AppendUint64(dst, a.ID)
	dst = binary.AppendVarint(dst, a.CreateTime-near)
	dst = binary.AppendVarint(dst, a.UpdateTime-near)
	if a.FireTime != 0 {
		dst = binary.AppendVarint(dst, a.FireTime-near)
	}
	if e.breach != 0 {
		dst = binary.AppendVarint(dst, e.breach-near)
	}
	for i, f := range numbers {
		if kind&(1<<(numbersAt+i)) != 0 {
			dst = state.AppendFloat(dst, *f)
		}
	}
	for _, n := range [...]uint64{a.RuleVersion, a.BaselineCount, a.Boot, a.Seq, uint64(e.streak)} {
		dst = binary.AppendUvarint(dst, n)
	}
	return state.AppendText(dst, a.Reason)
}

// numbers are those of an alert that rules without a metric leave at 0.
func (a *Alert) numbers() [4]*float64 {
	return [...]*float64{&a.Value, &a.Score, &a.BaselineMean, &a.BaselineStddev}
}

func flag(set bool, f byte) byte {
	if set {
		return f
	}
	return 0
}

// Decode makes the Book what was encoded; its tags stay, near is what Encode was given. What no Book
// can be is a failure of the reader, and b is then good for nothing.
func (b *Book) Decode(in *state.Reader, near int64) {
	*b = Book{tags: b.tags, trackers: b.trackers[:0]}
	flags := in.Byte()
	b.offline = flags&bookOffline != 0
	if flags&bookSeen != 0 {
		b.seen = uint32(in.Byte())
		b.lastSeen, b.interval = near+in.Int(), in.Int()
		if b.seen == 0 || b.seen > learnedAfter {
			in.Fail("%d receive times", b.seen)
		}
	}
	if flags&bookSince != 0 {
		b.since = near + in.Int()
	}
	if flags&bookDue != 0 {
		b.due = near + in.Int()
	}
	if flags&bookDiverged != 0 {
		b.diverged = near + in.Int()
	}
	const least = 4 // bytes of a tracker
	n := in.Count(least, math.MaxInt)
	if n > cap(b.trackers) {
		b.trackers = make([]tracker, 0, n)
	}
	for range n {
		b.trackers = append(b.trackers, tracker{})
		t := &b.trackers[len(b.trackers)-1]
		t.decode(in, near)
		if t.open != nil {
			b.count(t.open, +1)
		}
		if in.Err() != nil {
			return
		}
	}
}

func (t *tracker) decode(in *state.Reader, near int64) {
	flags := in.Byte()
	t.rule, t.metric, t.count = in.Name(), in.Name(), in.Uint()
	if flags&trackPoint != 0 {
		t.previous = &point{time: near + in.Int(), value: in.Float()}
	}
	if flags&trackOpen != 0 {
		t.open = &episode{reads: flags&trackReads != 0}
		t.open.decode(in, near, flags)
		t.open.alert.Rule, t.open.alert.Metric = t.rule, t.metric
		t.open.base, t.open.entered = t.open.alert.Severity, t.open.alert.entered()
	}
	if flags&trackMore != 0 {
		t.decodeMore(in, near)
	}
}

func (t *tracker) decodeMore(in *state.Reader, near int64) {
	more := in.Uint()
	if more&moreFires != 0 {
		n := in.Count(1, maxFlapCount+1)
		for range n {
			t.fires = append(t.fires, near+in.Int())
		}
	}
	e := t.open
	if e == nil {
		if more&^moreFires != 0 {
			in.Fail("a closed alert with %b", more)
		}
		return
	}
	a := &e.alert
	if more&moreEntered != 0 {
		e.entered = near + in.Int()
	}
	if more&moreEscalated != 0 {
		e.base, a.EscalateTime = Severity(in.Byte()), near+in.Int()
		if e.base < Info || e.base > Critical {
			in.Fail("base severity %d", e.base)
		}
	}
	if more&moreBelow != 0 {
		e.below = near + in.Int()
	}
	if more&moreCalm != 0 {
		e.calm, e.calmed = near+in.Int(), near+in.Int()
	}
	if more&moreAcknowledged != 0 {
		a.AcknowledgeTime = near + in.Int()
		a.AcknowledgedBy, a.AcknowledgeComment = in.Text(), in.Text()
	}
	if more&moreSilence != 0 {
		a.Silence = in.Text()
	}
	a.Shadow, a.Flapping = more&moreShadow != 0, more&moreFlapping != 0
}

func (e *episode) decode(in *state.Reader, near int64, flags byte) {
	a := &e.alert
	kind := in.Byte()
	a.Severity, a.State = Severity(kind&3), State(kind>>2&3)
	if a.Severity < Info || a.Severity > Critical || a.State != Pending && a.State != Firing {
		in.Fail("open alert of severity %d in state %d", a.Severity, a.State)
	}
	a.ID = in.Fixed()
	a.CreateTime, a.UpdateTime = near+in.Int(), near+in.Int()
	if flags&trackFired != 0 {
		a.FireTime = near + in.Int()
	}
	if flags&trackBreach != 0 {
		e.breach = near + in.Int()
	}
	for i, f := range a.numbers() {
		if kind&(1<<(numbersAt+i)) != 0 {
			*f = in.Float()
		}
	}
	for _, n := range [...]*uint64{&a.RuleVersion, &a.BaselineCount, &a.Boot, &a.Seq} {
		*n = in.Uint()
	}
	streak := in.Uint()
	if streak > math.MaxUint32 {
		in.Fail("streak of %d samples", streak)
	}
	e.streak = uint32(streak)
	a.Reason = in.Text()
}
