package command

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
	"github.com/doppel-iot/doppel/sim/series"
)

// source is a device of either kind, as the oracle asks it.
type source interface {
	fleet.Source
	Boot() uint64
	Expected() device.Sum
	Labels() []device.Label
}

// crowd is all devices of a run: first named, then, once everything is connected, started.
type crowd struct {
	options  *Options
	skew     time.Duration
	ids      []string
	series   []series.Series
	interval time.Duration // between two samples of a synthetic device; 0: unpaced or none
	sources  []source
}

func newCrowd(o *Options, skew time.Duration) (*crowd, error) {
	c := &crowd{options: o, skew: skew}
	width := max(5, len(strconv.Itoa(o.Devices)))
	for i := range o.Devices {
		c.ids = append(c.ids, fmt.Sprintf("%s%0*d", o.Prefix, width, i+1))
	}
	if o.Devices > 0 && o.Rate > 0 {
		c.interval = time.Duration(float64(time.Second) / o.Rate)
	}
	if o.Replay != "" {
		all, err := series.Load(os.DirFS(o.Replay))
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		seen := make(map[string]bool, len(all))
		for _, s := range all {
			s.ID = o.Prefix + s.ID
			if seen[s.ID] {
				return nil, fmt.Errorf("replay: two files make the device id %s", s.ID)
			}
			seen[s.ID] = true
			c.series = append(c.series, s)
			c.ids = append(c.ids, s.ID)
		}
	}
	return c, nil
}

// start makes the devices; base gives what their twins hold already.
func (c *crowd) start(now time.Time, base func(id string) (digest, set uint64)) (sources []fleet.Source, until int64, err error) {
	o := c.options
	clocks := device.NewRandom(o.Seed, math.MaxUint64)
	for i := range o.Devices {
		cfg := device.Config{
			ID: c.ids[i], Seed: o.Seed, Index: uint64(i), Boot: o.Boot, Metrics: o.Metrics,
			Interval: int64(c.interval), Anomalies: o.Anomalies, Steady: o.Verify,
			Skew: int64(clocks.Between(-1, 1) * float64(c.skew)),
		}
		// Devices are spread over the interval, so that the fleet is a steady stream.
		cfg.Start = now.UnixNano() + int64(float64(c.interval)*float64(i)/float64(o.Devices))
		if c.interval > 0 {
			cfg.Limit = max(1, uint64(math.Round(o.Duration.Seconds()*o.Rate)))
		}
		cfg.Digest, cfg.Set = base(cfg.ID)
		c.sources = append(c.sources, device.New(cfg))
	}
	for _, s := range c.series {
		cfg := series.Config{ID: s.ID, Boot: o.Boot, Start: now.UnixNano(), Speed: o.Speed}
		cfg.Digest, cfg.Set = base(cfg.ID)
		p, err := series.NewPlayer(s, cfg)
		if err != nil {
			return nil, 0, err
		}
		c.sources = append(c.sources, p)
	}
	for _, s := range c.sources {
		sources = append(sources, s)
	}
	// A device's last sample may be due a moment after the end: its number limits it.
	return sources, now.Add(o.Duration).UnixNano(), nil
}

// devices is what the run's devices know at its end.
func (c *crowd) devices(r fleet.Result) []oracle.Device {
	all := make([]oracle.Device, len(c.sources))
	for i, s := range c.sources {
		all[i] = oracle.Device{
			ID: s.ID(), Boot: s.Boot(), Sum: s.Expected(), Labels: s.Labels(),
			Unacked: r.Devices[i].Unacked, Swapped: r.Devices[i].Swapped,
		}
	}
	return all
}
