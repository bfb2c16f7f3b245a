package device

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// Config says what a device is. Everything it will send follows from it.
type Config struct {
	ID    string // its levels and seasons follow from it
	Seed  uint64 // of the fleet; the device's own noise and anomalies also depend on Index
	Index uint64
	Boot  uint64
	// Metrics is the number of readings in a sample.
	Metrics int
	// Start is when the first sample is due, Interval the distance of the others; unix nanoseconds.
	// Interval 0: unpaced, and the event time is the time it is taken.
	Start, Interval int64
	// Limit is how many samples there are; 0: no end.
	Limit uint64
	// Skew is added to event times: the device's clock is wrong by it.
	Skew int64
	// Anomalies is the chance of an anomaly per device and minute (Interval 0: per 1,000 samples).
	Anomalies float64
	Plan      []Planned
	// Steady makes it refuse to reboot.
	Steady bool
	// Digest and Set are what the device's twin holds already; the digests run on from there.
	Digest, Set uint64
}

// Device is one simulated device.
type Device struct {
	cfg      Config
	random   *Random
	metrics  []metric
	readings []Reading
	chance   float64 // of an anomaly per sample
	seq      uint64  // last number given
	last     int64   // last event time given
	quiet    uint64  // no anomaly by chance up to this number
	episode  episode
	labels   []Label
	chain    Chain
	told     control
	before   uint64 // samples of earlier boots
}

// New returns a device that has sent nothing.
func New(cfg Config) *Device {
	// What a device is like follows from its id alone: run after run it is the same device to its twin,
	// whose baselines live on.
	nature := NewRandom(xxhash.Sum64String(cfg.ID), 0)
	d := &Device{
		cfg:     cfg,
		random:  NewRandom(cfg.Seed, cfg.Index),
		metrics: newMetrics(nature, cfg.Metrics),
		chance:  cfg.Anomalies / 1000,
		quiet:   quietStart,
		chain:   Chain{Sum: Sum{Digest: cfg.Digest, Set: cfg.Set}},
	}
	if cfg.Interval > 0 {
		d.chance = cfg.Anomalies * float64(cfg.Interval) / 60e9
	}
	d.readings = make([]Reading, len(d.metrics))
	for i := range d.metrics {
		d.readings[i].Name = d.metrics[i].name
	}
	return d
}

// ID is the device's id.
func (d *Device) ID() string { return d.cfg.ID }

// Boot is the boot it numbers its samples in.
func (d *Device) Boot() uint64 { return d.cfg.Boot }

// Never and Unpaced are what Due gives when there is no next sample, and when it is due always.
const (
	Never   = math.MaxInt64
	Unpaced = math.MinInt64
)

// Due is when the next sample is due, unix nanoseconds, or Never or Unpaced.
func (d *Device) Due() int64 {
	if d.cfg.Limit > 0 && d.before+d.seq >= d.cfg.Limit {
		return Never
	}
	if d.cfg.Interval == 0 {
		return Unpaced
	}
	return d.cfg.Start + int64(d.seq)*d.cfg.Interval
}

// Take gives the next sample. now is the fleet's clock and matters only where Interval is 0.
func (d *Device) Take(now int64) Sample {
	at := d.Due()
	if d.cfg.Interval == 0 {
		at = now
	}
	d.last = max(at+d.cfg.Skew, d.last+1)
	d.seq++

	d.maybeBegin()
	for i := range d.metrics {
		m := &d.metrics[i]
		v := m.next(d.random, d.last)
		if d.episode.left > 0 && d.episode.metric == i {
			v = d.episode.distort(v, m.sigma)
		}
		m.last = round(v)
		d.readings[i].Value = m.last
	}
	if d.episode.left > 0 {
		if d.episode.left--; d.episode.left == 0 {
			d.quiet = d.seq + quietAfter
		}
	}

	s := Sample{Boot: d.cfg.Boot, Seq: d.seq, Time: d.last, Readings: d.readings}
	d.chain.Add(&s)
	return s
}

// Expected is what the twin must hold once everything taken so far was applied.
func (d *Device) Expected() Sum { return d.chain.Sum }

// Labels are the anomalies begun so far, in order.
func (d *Device) Labels() []Label { return d.labels }

// maybeBegin starts a planned anomaly, or one by chance, at the current number.
func (d *Device) maybeBegin() {
	kind, index, found := Spike, 0, false
	for _, p := range d.cfg.Plan {
		if p.Seq == d.seq && p.Metric < len(d.metrics) {
			kind, index, found = p.Kind, p.Metric, true
		}
	}
	// The draw is made in any case, so that a plan doesn't change the rest of the run.
	if d.random.Chance(d.chance) && !found && d.seq > d.quiet && d.episode.left == 0 {
		kind, index, found = Kind(d.random.Intn(int(kinds))), d.random.Intn(len(d.metrics)), true
	}
	if !found {
		return
	}
	d.episode = begin(d.random, kind, index, d.metrics[index].last)
	d.labels = append(d.labels, Label{
		Kind:   kind,
		Metric: d.metrics[index].name,
		First:  d.seq,
		Last:   d.seq + uint64(d.episode.length) - 1,
		Start:  d.last,
	})
}
