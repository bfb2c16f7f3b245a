package codec

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// draft is the sample being decoded. The three formats fill it through the same methods, so that a
// rule of the contract stands in one place. The first thing wrong with it is kept; reading goes on,
// because the number may come later.
type draft struct {
	index    int // in the batch; -1: the message itself is the sample
	seen     field
	seq      uint64
	time     int64
	hasSeq   bool
	hasTime  bool
	noNumber bool // its number is ambiguous, whatever seq says
	first    int  // index of its first reading in Decoder.readings
	reported []byte
	refusal  *Refusal
}

// field is a set of a sample's members.
type field uint8

const (
	fieldSeq field = 1 << iota
	fieldTime
	fieldMetrics
	fieldReported
	fieldBoot
	fieldSamples
)

func (f field) String() string {
	switch f {
	case fieldSeq:
		return "seq"
	case fieldTime:
		return "time"
	case fieldMetrics:
		return "metrics"
	case fieldReported:
		return "reported"
	case fieldBoot:
		return "boot"
	case fieldSamples:
		return "samples"
	default:
		return "field " + strconv.Itoa(int(f))
	}
}

// Times outside are refused. Integers below minTime would be a unit other than nanoseconds.
const (
	minTime   = 1e17
	year2000  = 946684800
	maxAhead  = 10 * time.Minute
	maxNumber = math.MaxInt64 // of boot, seq and session
)

func (d *Decoder) begin(index int) {
	d.draft = draft{index: index, first: len(d.readings)}
}

// refuse notes what is wrong with the sample; path is the place in it, "" for the sample itself.
func (d *Decoder) refuse(reason twin.Reason, path, format string, args ...any) {
	if d.draft.refusal != nil {
		return
	}
	if d.draft.index >= 0 {
		prefix := "samples[" + strconv.Itoa(d.draft.index) + "]"
		if path != "" {
			prefix += "."
		}
		path = prefix + path
	}
	if path == "" {
		path = "the sample"
	}
	d.draft.refusal = &Refusal{Reason: reason, Detail: path + ": " + fmt.Sprintf(format, args...)}
}

// once says whether a member may be read: a second one of the same name makes the sample ambiguous.
func (d *Decoder) once(f field) bool {
	if d.draft.seen&f == 0 {
		d.draft.seen |= f
		return true
	}
	d.refuse(twin.NotDecodable, f.String(), "appears twice")
	d.draft.noNumber = d.draft.noNumber || f == fieldSeq
	return false
}

// misplaced notes a member of the message in a sample. A boot there means another number.
func (d *Decoder) misplaced(f field) {
	d.refuse(twin.NotDecodable, f.String(), "stands beside samples, not in one")
	d.draft.noNumber = d.draft.noNumber || f == fieldBoot
}

// setSeq takes the sample's number.
func (d *Decoder) setSeq(n integer) {
	if problem := n.check(1); problem != "" {
		d.refuse(twin.NumberRange, "seq", "%s", problem)
		return
	}
	d.draft.seq, d.draft.hasSeq = n.abs, true
}

// setTime takes a time given as an integer.
func (d *Decoder) setTime(n integer) {
	switch {
	case n.fraction:
		d.refuse(twin.NumberRange, "time", "%s is not an integer; %s", n.text(), timeForms)
	case n.overflow || n.abs > math.MaxInt64:
		d.refuse(twin.NumberRange, "time", "%s does not fit 64 bits of nanoseconds", n.text())
	case n.negative && n.abs > 0:
		d.refuse(twin.TimeUnit, "time", "%s is negative; %s", n.text(), timeForms)
	case n.abs < minTime:
		d.refuse(twin.TimeUnit, "time", "%s %s; %s", n.text(), unitOf(n.abs), timeForms)
	default:
		d.setUnix(int64(n.abs/1e9), int64(n.abs%1e9))
	}
}

const timeForms = "a time is RFC 3339 or integer nanoseconds since 1970"

func unitOf(n uint64) string {
	switch {
	case n >= 1e14:
		return "looks like microseconds"
	case n >= 1e11:
		return "looks like milliseconds"
	case n >= 1e8:
		return "looks like seconds"
	}
	return "is below 10^17"
}

// setTimeText takes a time given as text.
func (d *Decoder) setTimeText(text []byte) {
	if n, ok := digits(text); ok { // protojson writes 64-bit integers as strings
		d.setTime(n)
		return
	}
	var t time.Time
	if err := t.UnmarshalText(text); err != nil {
		d.refuse(twin.NotDecodable, "time", "%.40q is not RFC 3339; %s", text, timeForms)
		return
	}
	d.setUnix(t.Unix(), int64(t.Nanosecond()))
}

// setUnix takes a time whose unit is certain.
func (d *Decoder) setUnix(sec, nsec int64) {
	limit := d.receivedAt + int64(maxAhead)
	switch {
	case sec < year2000:
		d.refuse(twin.TimeTooOld, "time", "%s is before the year 2000", rfc3339(sec, nsec))
	case sec > limit/1e9 || sec*1e9+nsec > limit:
		d.refuse(twin.TimeInFuture, "time", "%s is more than %d minutes ahead of the receive time %s",
			rfc3339(sec, nsec), int(maxAhead.Minutes()), rfc3339(d.receivedAt/1e9, d.receivedAt%1e9))
	default:
		d.draft.time, d.draft.hasTime = sec*1e9+nsec, true
	}
}

func rfc3339(sec, nsec int64) string {
	return time.Unix(sec, nsec).UTC().Format(time.RFC3339Nano)
}

// setReading takes the value of one metric. With last, a second value of a metric replaces the first,
// as in a protobuf map; otherwise it is an error.
func (d *Decoder) setReading(name string, value float64, last bool) {
	i, n := len(d.readings), len(d.readings)
	for i > d.draft.first && d.readings[i-1].Name >= name {
		i--
	}
	if i < n && d.readings[i].Name == name {
		if last {
			d.readings[i].Value = value
			return
		}
		d.refuse(twin.NotDecodable, "metrics."+name, "appears twice")
		return
	}
	if n-d.draft.first == MaxMetrics {
		d.refuse(twin.TooManyMetrics, "metrics", "more than %d metrics in a sample", MaxMetrics)
		return
	}
	reading := twin.Reading{Name: name, Value: value}
	if i == n {
		d.readings = append(d.readings, reading)
		return
	}
	d.readings = slices.Insert(d.readings, i, reading)
}

// metric gives the lasting name of a metric; false: it is refused.
func (d *Decoder) metric(name []byte) (string, bool) {
	if s, ok := d.names.known(name); ok {
		return s, true
	}
	if !validMetric(name) {
		d.refuse(twin.MetricName, "metrics", "%.80q is not a name: a letter or _, then up to 63 letters, digits or _", name)
		return "", false
	}
	return d.names.intern(name), true
}

// end turns the draft into an Item.
func (d *Decoder) end() {
	s := &d.draft
	readings := d.readings[s.first:len(d.readings):len(d.readings)]
	for i := range readings {
		if v := readings[i].Value; math.IsNaN(v) || math.IsInf(v, 0) {
			d.refuse(twin.NotFinite, "metrics."+readings[i].Name, "%v is not a finite number", v)
		}
	}
	if len(d.ranges) > 0 {
		d.checkRanges(readings)
	}
	if len(readings) == 0 && s.reported == nil {
		d.refuse(twin.NoContent, "", "neither metrics nor reported")
	}
	if s.refusal != nil {
		if s.hasSeq && !s.noNumber {
			s.refusal.Numbered, s.refusal.Seq = true, s.seq
		}
		d.readings = d.readings[:s.first]
		d.items = append(d.items, Item{Refusal: s.refusal})
		return
	}
	t := s.time
	if !s.hasTime {
		t = d.receivedAt
	}
	if len(readings) == 0 {
		readings = nil
	}
	d.items = append(d.items, Item{Sample: twin.Sample{
		Numbered: s.hasSeq,
		Timed:    s.hasTime,
		Seq:      s.seq,
		Time:     t,
		Readings: readings,
		Reported: s.reported,
	}})
}

// finish gives every sample the message's boot, which may stand behind them.
func (d *Decoder) finish() *Refusal {
	if d.batch && len(d.items) == 0 {
		return refuse(twin.NoContent, "samples: the batch is empty")
	}
	for i := range d.items {
		it := &d.items[i]
		switch {
		case it.Refusal == nil && it.Sample.Numbered:
			it.Sample.Boot = d.boot
		case it.Refusal != nil && it.Refusal.Numbered:
			it.Refusal.Boot = d.boot
		}
	}
	return nil
}

// setBoot takes the message's boot. Without it no number means anything, so a bad one refuses the
// whole message.
func (d *Decoder) setBoot(n integer) *Refusal {
	if problem := n.check(0); problem != "" {
		return refuse(twin.NumberRange, "boot: %s", problem)
	}
	d.boot, d.hasBoot = n.abs, true
	return nil
}

// mixed is the refusal of a message that is both a sample and a batch.
func mixed(f field) *Refusal {
	return refuse(twin.NotDecodable, "%s: stands beside samples; in a batch it belongs into each sample", f)
}
