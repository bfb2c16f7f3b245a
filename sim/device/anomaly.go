package device

import "fmt"

// Kind is a kind of anomaly.
type Kind uint8

// The kinds of anomaly.
const (
	Spike   Kind = iota // a few samples far away
	Shift               // another level for a while
	Drift               // a ramp away from the level, then back at once
	Stuck               // the same value again and again
	Dropout             // the sensor reads zero
	kinds
)

// String is the name of a kind as reports show it.
func (k Kind) String() string {
	switch k {
	case Spike:
		return "spike"
	case Shift:
		return "shift"
	case Drift:
		return "drift"
	case Stuck:
		return "stuck"
	case Dropout:
		return "dropout"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Label says where an anomaly is: the truth that alerts are judged by.
type Label struct {
	Kind        Kind
	Metric      string
	First, Last uint64 // numbers of its samples
	Start       int64  // event time of the first
}

// Planned is an anomaly that happens at a fixed number instead of by chance.
type Planned struct {
	Seq    uint64
	Kind   Kind
	Metric int // index, sorted by name
}

// episode is an anomaly in progress on one metric.
type episode struct {
	kind   Kind
	metric int
	left   int     // samples still to come
	length int     // samples in all
	size   float64 // in standard deviations of the noise, signed
	held   float64 // value a stuck sensor repeats
}

const (
	// quietStart is how many samples a device sends before its first anomaly by chance: a detector
	// needs a baseline first.
	quietStart = 64
	// quietAfter is the least distance between two anomalies of a device in samples: peak hold in a
	// detector makes it deaf for a smaller one shortly after.
	quietAfter = 256
)

// begin draws length and size of an episode.
func begin(r *Random, kind Kind, metric int, current float64) episode {
	e := episode{kind: kind, metric: metric, held: current}
	switch kind {
	case Spike:
		e.length, e.size = 3+r.Intn(3), r.Between(10, 18)
	case Shift:
		e.length, e.size = 20+r.Intn(40), r.Between(8, 12)
	case Drift:
		e.length, e.size = 40+r.Intn(40), r.Between(10, 14)
	case Stuck:
		e.length = 30 + r.Intn(30)
	default:
		e.length = 4 + r.Intn(8)
	}
	if r.Chance(0.5) {
		e.size = -e.size
	}
	e.left = e.length
	return e
}

// distort is a metric's value under the episode; clean is what it would have been.
func (e *episode) distort(clean, sigma float64) float64 {
	switch e.kind {
	case Spike, Shift:
		return clean + float64(e.size*sigma)
	case Drift:
		done := float64(e.length-e.left+1) / float64(e.length)
		return clean + float64(e.size*sigma*done)
	case Stuck:
		return e.held
	default:
		return 0
	}
}
