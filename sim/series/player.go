package series

import (
	"fmt"
	"math"
	"slices"

	"github.com/doppel-iot/doppel/sim/device"
)

// Config says how a series is played.
type Config struct {
	ID   string // default: the series' own
	Boot uint64
	// Start is the time of the first sample, unix nanoseconds. Recorded times are moved there and
	// their distances divided by Speed; the result is both the event time and when a sample is due.
	Start int64
	Speed float64
	// Skip is how many rows are passed over at the beginning.
	Skip        int
	Digest, Set uint64 // what the twin holds already
}

// Player gives a series' samples again and again, without end.
type Player struct {
	cfg      Config
	series   Series
	span     int64 // of one round, in recorded time: up to the first sample of the next
	row      int
	round    int64
	origin   int64
	seq      uint64
	last     int64
	readings [1]device.Reading
	chain    device.Chain
}

// NewPlayer returns a player that has given nothing.
func NewPlayer(s Series, cfg Config) (*Player, error) {
	if cfg.Speed <= 0 || math.IsInf(cfg.Speed, 0) || math.IsNaN(cfg.Speed) {
		return nil, fmt.Errorf("speed %v: want a positive number", cfg.Speed)
	}
	if cfg.ID == "" {
		cfg.ID = s.ID
	}
	n := len(s.Times)
	p := &Player{
		cfg: cfg, series: s,
		// A row's usual distance closes the round.
		span:  s.Times[n-1] - s.Times[0] + s.Step(),
		row:   cfg.Skip % n,
		chain: device.Chain{Sum: device.Sum{Digest: cfg.Digest, Set: cfg.Set}},
	}
	p.origin = s.Times[p.row]
	p.readings[0].Name = "value"
	return p, nil
}

// Step is the usual distance of two rows, at least 1 ns.
func (s *Series) Step() int64 {
	steps := make([]int64, len(s.Times)-1)
	for i := range steps {
		steps[i] = s.Times[i+1] - s.Times[i]
	}
	slices.Sort(steps)
	return max(steps[len(steps)/2], 1)
}

// ID is the device's id.
func (p *Player) ID() string { return p.cfg.ID }

// Boot is the boot it numbers its samples in.
func (p *Player) Boot() uint64 { return p.cfg.Boot }

// Due is when the next sample is due, unix nanoseconds.
func (p *Player) Due() int64 {
	recorded := float64(p.series.Times[p.row]-p.origin) + float64(p.round)*float64(p.span)
	return max(p.cfg.Start+int64(recorded/p.cfg.Speed), p.last+1)
}

// Take gives the next sample. Its time follows from the recording; the fleet's clock is not used.
func (p *Player) Take(int64) device.Sample {
	p.last = p.Due()
	p.seq++
	p.readings[0].Value = p.series.Values[p.row]
	if p.row++; p.row == len(p.series.Times) {
		p.row = 0
		p.round++
	}
	s := device.Sample{Boot: p.cfg.Boot, Seq: p.seq, Time: p.last, Readings: p.readings[:]}
	p.chain.Add(&s)
	return s
}

// Expected is what the twin must hold once everything taken so far was applied.
func (p *Player) Expected() device.Sum { return p.chain.Sum }

// Labels is empty: what is unusual in a recording is nobody's plan.
func (p *Player) Labels() []device.Label { return nil }
