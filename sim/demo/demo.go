// Package demo is `doppel demo`: an embedded node with a simulated fleet and recorded series beside
// it, so that there is something to look at within seconds.
package demo

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/series"
)

// Config says what the demo's fleet looks like.
type Config struct {
	Devices int     // synthetic devices, default 200
	Rate    float64 // samples per second and device, default 1
	Log     *slog.Logger
}

const (
	connections = 8
	// history is how many samples are sent at once at the start, with times in the past: baselines
	// need 30 before anything can be unusual.
	history = 90
	// anomalies per device and minute: with 200 devices one every 15 seconds.
	anomalies = 0.02
	seed      = 7
	// settle is short: the node the fleet talks to is about to stop too.
	settle  = time.Second
	connect = 10 * time.Second
	forever = 10 * 365 * 24 * time.Hour
)

// Fleet sends to the broker at url until ctx ends: synthetic devices pump-001 … and the recorded
// series, sped up to a sample a second. Anomalies come by chance, and three on purpose in the first
// minute. Each call numbers in a new boot.
func Fleet(ctx context.Context, url string, cfg Config) error {
	if cfg.Devices == 0 {
		cfg.Devices = 200
	}
	if cfg.Rate == 0 {
		cfg.Rate = 1
	}
	start := time.Now()
	boot := uint64(start.UnixMilli())
	f, err := fleet.New(fleet.Config{
		Broker: url, Connections: connections, Format: fleet.JSON, Settle: settle, Log: cfg.Log, Interactive: true,
		ClientID: fmt.Sprintf("doppel-demo-%x", boot),
	})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	connecting, cancel := context.WithTimeout(ctx, connect)
	err = f.Connect(connecting)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped before it began
		}
		return fmt.Errorf("demo: %w", err)
	}
	sources := pumps(cfg, boot, start)
	recorded, err := recordings(boot, start)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	f.Run(ctx, append(sources, recorded...), start.Add(forever).UnixNano())
	return nil
}

// pumps are the synthetic devices.
func pumps(cfg Config, boot uint64, start time.Time) []fleet.Source {
	interval := time.Duration(float64(time.Second) / cfg.Rate)
	begin := start.Add(-history * interval).UnixNano()
	sources := make([]fleet.Source, cfg.Devices)
	for i := range sources {
		sources[i] = device.New(device.Config{
			ID: fmt.Sprintf("pump-%03d", i+1), Seed: seed, Index: uint64(i), Boot: boot, Metrics: 3,
			Start:    begin + int64(float64(interval)*float64(i)/float64(cfg.Devices)),
			Interval: int64(interval), Anomalies: anomalies, Plan: planned(i, cfg.Rate),
		})
	}
	return sources
}

// planned are the anomalies of the first minute, on devices 7, 42 and 113.
func planned(i int, rate float64) []device.Planned {
	at := func(seconds float64) uint64 { return history + uint64(math.Round(seconds*rate)) }
	switch i + 1 {
	case 7:
		return []device.Planned{{Seq: at(20), Kind: device.Spike, Metric: 1}}
	case 42:
		return []device.Planned{{Seq: at(35), Kind: device.Shift, Metric: 1}}
	case 113:
		return []device.Planned{{Seq: at(50), Kind: device.Dropout, Metric: 0}}
	default:
		return nil
	}
}

// recordings are the series that come with the program, their rows a second apart.
func recordings(boot uint64, start time.Time) ([]fleet.Source, error) {
	all, err := series.Recorded()
	if err != nil {
		return nil, err
	}
	sources := make([]fleet.Source, len(all))
	for i, s := range all {
		sources[i], err = series.NewPlayer(s, series.Config{
			Boot: boot, Start: start.Add(-history * time.Second).UnixNano(), Speed: float64(s.Step()) / float64(time.Second),
		})
		if err != nil {
			return nil, err
		}
	}
	return sources, nil
}
