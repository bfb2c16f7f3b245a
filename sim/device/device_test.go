package device_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/sim/device"
)

// The digests are those of another implementation of contract section 6 (Python, xxhash 3).
func TestChain(t *testing.T) {
	t.Parallel()
	var c device.Chain
	for i, step := range []struct {
		sample      device.Sample
		digest, set uint64
	}{
		{
			device.Sample{Boot: 3, Seq: 118, Time: 1795341600123456789, Readings: []device.Reading{{"temperature", 21.5}, {"vibration", 0.02}}},
			0x1647090cc57cbbf4, 0x1647090cc57cbbf4,
		},
		{
			device.Sample{Boot: 3, Seq: 119, Time: 1795341601123456789, Readings: []device.Reading{{"temperature", math.Copysign(0, -1)}}},
			0xc8f6ca70769b1702, 0x4d9f994fd317f664,
		},
		{
			device.Sample{Boot: 4, Seq: 1, Time: -1, Readings: []device.Reading{{"a", 1}, {"b", 0}}},
			0x5e4855f978466993, 0xe509411ea951de98,
		},
	} {
		c.Add(&step.sample)
		if c.Digest != step.digest || c.Set != step.set || c.Samples != uint64(i+1) {
			t.Errorf("after sample %d: digest %016x, set %016x, samples %d; want %016x, %016x", i, c.Digest, c.Set, c.Samples, step.digest, step.set)
		}
	}

	resumed := device.Chain{Sum: device.Sum{Digest: 0x0123456789abcdef, Set: 1}}
	resumed.Add(&device.Sample{Boot: 3, Seq: 118, Time: 1795341600123456789, Readings: []device.Reading{{"temperature", 21.5}, {"vibration", 0.02}}})
	if want := uint64(0xeff89c92c7f62928); resumed.Digest != want {
		t.Errorf("resumed digest %016x, want %016x", resumed.Digest, want)
	}
	if want := uint64(0x1647090cc57cbbf4) + 1; resumed.Set != want {
		t.Errorf("resumed set %016x, want %016x", resumed.Set, want)
	}
}

func config() device.Config {
	return device.Config{
		ID: "sim-1", Seed: 7, Index: 3, Boot: 5, Metrics: 3,
		Start: 1_700_000_000_000_000_000, Interval: int64(100 * time.Millisecond),
	}
}

// take copies n samples.
func take(d *device.Device, n int) []device.Sample {
	all := make([]device.Sample, n)
	for i := range all {
		all[i] = d.Take(0)
		all[i].Readings = slices.Clone(all[i].Readings)
	}
	return all
}

func TestSameSeedSameDevice(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.Anomalies = 50
	a, b := device.New(cfg), device.New(cfg)
	if diff := cmp.Diff(take(a, 5000), take(b, 5000)); diff != "" {
		t.Errorf("two devices of one seed differ:\n%s", diff)
	}
	if diff := cmp.Diff(a.Labels(), b.Labels()); diff != "" || len(a.Labels()) == 0 {
		t.Errorf("labels (%d) differ:\n%s", len(a.Labels()), diff)
	}
	if a.Expected() != b.Expected() {
		t.Errorf("digests %v, %v", a.Expected(), b.Expected())
	}
	cfg.Index++
	if other := device.New(cfg); cmp.Equal(take(device.New(config()), 1), take(other, 1)) {
		t.Error("two devices of a fleet sent the same")
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.Limit, cfg.Skew = 100, -int64(time.Minute)
	d := device.New(cfg)
	var want device.Chain
	for i := range 100 {
		due := d.Due()
		if at := cfg.Start + int64(i)*cfg.Interval; due != at {
			t.Fatalf("sample %d due at %d, want %d", i, due, at)
		}
		s := d.Take(due)
		want.Add(&s)
		if s.Boot != 5 || s.Seq != uint64(i+1) || s.Time != due+cfg.Skew {
			t.Fatalf("sample %d is boot %d, seq %d, time %d", i, s.Boot, s.Seq, s.Time)
		}
		if !slices.IsSortedFunc(s.Readings, func(a, b device.Reading) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("readings not in order: %v", s.Readings)
		}
		for _, r := range s.Readings {
			if r.Value != math.Round(r.Value*1000)/1000 {
				t.Errorf("%s = %v has more than three decimals", r.Name, r.Value)
			}
		}
	}
	if d.Due() != device.Never {
		t.Errorf("due %d behind the limit", d.Due())
	}
	if got := d.Expected(); got != want.Sum || got.Samples != 100 {
		t.Errorf("expected digests %+v", got)
	}
}

func TestUnpacedTimesGrow(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.Interval = 0
	d := device.New(cfg)
	if d.Due() != device.Unpaced {
		t.Errorf("due %d", d.Due())
	}
	a, b, c := d.Take(1000).Time, d.Take(1000).Time, d.Take(900).Time
	if a != 1000 || b != 1001 || c != 1002 {
		t.Errorf("times %d, %d, %d; want 1000, 1001, 1002", a, b, c)
	}
}

// What a device sends must look normal to a z-score, but for what carries a label.
func TestAnomaliesStandOut(t *testing.T) {
	t.Parallel()
	const at = 600
	for _, kind := range []device.Kind{device.Spike, device.Shift, device.Drift, device.Stuck, device.Dropout} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			cfg := config()
			cfg.Plan = []device.Planned{{Seq: at, Kind: kind, Metric: 1}}
			d := device.New(cfg)
			samples := take(d, 900)
			if len(d.Labels()) != 1 {
				t.Fatalf("labels: %+v", d.Labels())
			}
			l := d.Labels()[0]
			if l.Kind != kind || l.First != at || l.Last < at+2 || l.Start != samples[at-1].Time || l.Metric != samples[0].Readings[1].Name {
				t.Errorf("label %+v", l)
			}
			for i := range samples[0].Readings {
				calm := largestZ(samples[:at-1], i)
				if calm > 4.5 {
					t.Errorf("metric %d: |z| %.1f without anomaly", i, calm)
				}
			}
			inside := samples[at-1 : l.Last]
			switch kind {
			case device.Stuck:
				for _, s := range inside {
					if s.Readings[1].Value != inside[0].Readings[1].Value {
						t.Fatal("a stuck sensor moved")
					}
				}
			case device.Dropout:
				for _, s := range inside {
					if s.Readings[1].Value != 0 {
						t.Fatal("a sensor that dropped out reads something")
					}
				}
			default:
				if z := largestZ(samples[:l.Last], 1); z < 5 {
					t.Errorf("largest |z| %.1f inside", z)
				}
			}
		})
	}
}

// largestZ is the largest |z| of a reading against up to 512 before it, from 64 on.
func largestZ(samples []device.Sample, metric int) float64 {
	largest := 0.0
	for i := 64; i < len(samples); i++ {
		window := samples[max(0, i-512):i]
		sum, squares := 0.0, 0.0
		for _, s := range window {
			sum += s.Readings[metric].Value
		}
		mean := sum / float64(len(window))
		for _, s := range window {
			d := s.Readings[metric].Value - mean
			squares += d * d
		}
		z := (samples[i].Readings[metric].Value - mean) / math.Sqrt(squares/float64(len(window)-1))
		largest = max(largest, math.Abs(z))
	}
	return largest
}

func BenchmarkTake(b *testing.B) {
	d := device.New(config())
	b.ReportAllocs()
	for b.Loop() {
		d.Take(0)
	}
}
