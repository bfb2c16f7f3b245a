// Package twin is the state machine of one device twin: Step takes a logged input and the time at
// which its owner took it, changes the twin and says what that gave. The same inputs in the same
// order give the same twin, bit for bit, on every machine: restore, replay and history rest on it.
//
// It does not log, store, publish or time anything, and it gives up on no number by itself: its
// owner asks Wake what is due and logs that as an input (protocol rules P1 and O8).
//
// PURE: no I/O, no clock, no goroutines, no randomness. A Twin belongs to one goroutine.
package twin

import (
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/sequence"
)

// MaxMetrics is how many different metrics one twin may have.
const MaxMetrics = 64

// Twin is one device as its inputs tell it. What most devices never need hangs behind pointers.
type Twin struct {
	id              string
	version         uint64
	reportedVersion uint64
	boot, seq       uint64 // last numbered sample applied in order
	digest          uint64
	setDigest       uint64
	created         int64
	lastSeen        int64
	lastData        int64 // when the latest sample was received
	counters        Counters
	numbers         sequence.Sequencer[*waiting]
	metrics         []metric // by name, every name ever accepted
	book            alert.Book

	timed   *timed      // an unnumbered device that sends times
	props   *properties // it has reported something
	patches *patches    // it numbers what it reports
	status  *status     // it has said whether it is connected
	wishes  *wishes     // people want something of it, or have sorted it
	death   *death      // it was deleted, at least once

	duplicates uint32 // since TakeDuplicates
	online     bool

	quarantined bool
}

// metric is one metric of a twin. known is false until a sample with it was applied in order.
type metric struct {
	name     string
	value    float64
	z, score float64 // NaN: none
	time     int64
	base     baseline.Baseline
	known    bool
}

// Counters count samples: received = Applied + Late + Duplicate + DeadLettered + Held.
type Counters struct {
	Applied      uint64 // in order
	Late         uint64 // accepted behind the order; not in Applied
	Duplicate    uint64
	DeadLettered uint64
	Held         uint64 // waiting now
	Gaps         uint64 // episodes
	Missing      uint64 // numbers given up on that have not come since
}

// Metric is the latest value of a metric.
type Metric struct {
	Name     string
	Value    float64
	Time     int64
	Stats    baseline.Stats // window before the latest sample
	Z, Score float64        // of the latest sample against that window; NaN below min_samples
}

// New makes the twin of a device whose first input is taken at now.
func New(id string, now int64) *Twin { return &Twin{id: id, created: now} }

// ID is the device's id.
func (t *Twin) ID() string { return t.id }

// Version counts the logged inputs that changed the twin.
func (t *Twin) Version() uint64 { return t.version }

// ReportedVersion counts the changes of the reported properties.
func (t *Twin) ReportedVersion() uint64 { return t.reportedVersion }

// Boot and Seq number the last numbered sample that was applied in order.
func (t *Twin) Boot() uint64 { return t.boot }

// Seq is the number within Boot.
func (t *Twin) Seq() uint64 { return t.seq }

// Digest runs over the samples applied in order (contract section 6).
func (t *Twin) Digest() uint64 { return t.digest }

// SetDigest sums over all accepted samples, those that still wait included.
func (t *Twin) SetDigest() uint64 { return t.setDigest }

// Online says whether the device is believed to be connected.
func (t *Twin) Online() bool { return t.online }

// Quarantined says that the twin's code panicked and that it takes nothing until it is reset.
func (t *Twin) Quarantined() bool { return t.quarantined }

// LastSeen is when the last accepted message was received, unix nanoseconds; 0: none yet.
func (t *Twin) LastSeen() int64 { return t.lastSeen }

// CreateTime is when the twin was made, unix nanoseconds.
func (t *Twin) CreateTime() int64 { return t.created }

// Counters of the twin's samples.
func (t *Twin) Counters() Counters { return t.counters }

// OpenAlerts lists the pending and firing alerts, but for those of rules in shadow.
func (t *Twin) OpenAlerts() []alert.Alert {
	return slices.DeleteFunc(t.book.Open(), func(a alert.Alert) bool { return a.Shadow })
}

// AllOpenAlerts lists those of rules in shadow, too.
func (t *Twin) AllOpenAlerts() []alert.Alert { return t.book.Open() }

// Alarmed says that an alert fires whose rule is live.
func (t *Twin) Alarmed() bool { return t.book.Firing() }

// AppendMetrics appends the metrics that have a value, by name.
func (t *Twin) AppendMetrics(dst []Metric) []Metric {
	c := baseline.Default()
	for i := range t.metrics {
		m := &t.metrics[i]
		if m.known {
			dst = append(dst, Metric{
				Name: m.name, Value: m.value, Time: m.time,
				Stats: m.base.Before(&c), Z: m.z, Score: m.score,
			})
		}
	}
	return dst
}

// TakeDuplicates is the number of duplicates since it was last called. They are acknowledged and not
// logged; the next record of the twin carries this number.
func (t *Twin) TakeDuplicates() uint32 {
	n := t.duplicates
	t.duplicates = 0
	return n
}

// AddDuplicates adds the duplicates that a replayed record carries, before or after its Step: they
// are no part of the state that Hash covers.
func (t *Twin) AddDuplicates(n uint32) { t.counters.Duplicate += uint64(n) }

// newNames counts the readings whose metric the twin does not have. Both lists are in byte order.
func (t *Twin) newNames(readings []Reading) int {
	n, i := 0, 0
	for j := range readings {
		for i < len(t.metrics) && t.metrics[i].name < readings[j].Name {
			i++
		}
		if i == len(t.metrics) || t.metrics[i].name != readings[j].Name {
			n++
		}
	}
	return n
}

// register gives each new name its metric; n is what newNames counted.
func (t *Twin) register(readings []Reading, n int) {
	if n == 0 {
		return
	}
	all := make([]metric, 0, len(t.metrics)+n)
	old := t.metrics
	for j := range readings {
		for len(old) > 0 && old[0].name < readings[j].Name {
			all, old = append(all, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].name == readings[j].Name {
			continue
		}
		all = append(all, metric{name: readings[j].Name, z: math.NaN(), score: math.NaN()})
	}
	all = append(all, old...)
	t.metrics = all
}
