package baseline

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// reference keeps every sample and works everything out anew, in two passes.
type reference struct {
	samples []float64
	pane    []int64 // of each sample
}

func (r *reference) window(last int64) []float64 {
	for i, pane := range r.pane {
		if pane > last-panes {
			return r.samples[i:]
		}
	}
	return nil
}

func describe(xs []float64) Stats {
	if len(xs) == 0 {
		return Stats{}
	}
	s := Stats{Count: uint64(len(xs)), Min: math.Inf(1), Max: math.Inf(-1)}
	for _, x := range xs {
		s.Mean += x / float64(len(xs))
		s.Min, s.Max = math.Min(s.Min, x), math.Max(s.Max, x)
	}
	if len(xs) > 1 {
		var squares float64
		for _, x := range xs {
			squares += (x - s.Mean) * (x - s.Mean)
		}
		s.Stddev = math.Sqrt(squares / float64(len(xs)-1))
	}
	return s
}

func near(got, want, scale float64) bool { return math.Abs(got-want) <= 1e-9*(scale+math.Abs(want)) }

func check(t *rapid.T, i int, c *Config, b *Baseline, x float64, s Score, want Stats) {
	got := b.Before(c)
	scale := math.Max(math.Abs(want.Min), math.Abs(want.Max))
	if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max ||
		!near(got.Mean, want.Mean, scale) || !near(got.Stddev, want.Stddev, scale) {
		t.Fatalf("sample %d: window %+v, want %+v", i, got, want)
	}
	enough := int(got.Count) >= max(c.MinSamples, 2)
	alwaysZero := got.Stddev == 0 && got.Mean == 0 && x != 0 // as far as the window knows
	if s.OK != enough && (!enough || !alwaysZero) {
		t.Fatalf("sample %d: OK %v with %d samples", i, s.OK, got.Count)
	}
	if !s.OK {
		return
	}
	if got.Stddev > 0 && s.Z != (x-got.Mean)/got.Stddev {
		t.Fatalf("sample %d: z %v is not that of the window shown, %v", i, s.Z, (x-got.Mean)/got.Stddev)
	}
	if math.Abs(s.Plain) > math.Abs(s.Z) || (s.Score != 0 && s.Score != s.Plain) {
		t.Fatalf("sample %d: %+v: plain must not exceed z, score is plain or 0", i, s)
	}
}

func values(t *rapid.T) *rapid.Generator[float64] {
	offset := rapid.SampledFrom([]float64{0, 21.5, -1e6, 1e9}).Draw(t, "offset")
	return rapid.Custom(func(t *rapid.T) float64 {
		return offset + float64(rapid.IntRange(-1000, 1000).Draw(t, "step"))/8
	})
}

func TestSampleWindowAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Default()
		c.WindowSamples = rapid.SampledFrom([]int{8, 16, 64, 512}).Draw(t, "window")
		c.MinSamples = rapid.IntRange(0, 40).Draw(t, "min")
		length := rapid.IntRange(1, 3*c.WindowSamples/2).Draw(t, "length")
		xs := rapid.SliceOfN(values(t), length, length).Draw(t, "values")
		var b Baseline
		var r reference
		for i, x := range xs {
			s := b.Step(&c, int64(i), x)
			last := int64(max(i-1, 0) / c.paneSamples())
			check(t, i, &c, &b, x, s, describe(r.window(last)))
			r.samples, r.pane = append(r.samples, x), append(r.pane, int64(i/c.paneSamples()))
		}
	})
}

func TestTimeWindowAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Default()
		c.Window, c.MinSamples = 80*time.Second, 5
		length := rapid.IntRange(1, 200).Draw(t, "length")
		steps := rapid.SliceOfN(rapid.SampledFrom([]int64{0, 1, 1, 1, 2, 7, 10, 35, 79, 80, 81, 500}), length, length).Draw(t, "seconds")
		value := values(t)
		var b Baseline
		var r reference
		at := rapid.SampledFrom([]int64{-1000, 0, 1_795_341_600}).Draw(t, "start")
		for i, step := range steps {
			at += step
			x := value.Draw(t, "value")
			pane := floorDiv(at, 10)
			s := b.Step(&c, at*int64(time.Second), x)
			check(t, i, &c, &b, x, s, describe(r.window(pane)))
			r.samples, r.pane = append(r.samples, x), append(r.pane, pane)
		}
	})
}

// Whatever comes, a score is finite, and absurd values are over once they have left the window.
func TestExtremes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Default()
		c.WindowSamples, c.MinSamples = 16, 4
		extreme := rapid.SampledFrom([]float64{
			0, 1, -1, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1e200, -1e155, 1e-300,
		})
		var b Baseline
		for i, x := range rapid.SliceOfN(extreme, 0, 60).Draw(t, "values") {
			s := b.Step(&c, int64(i), x)
			if !finite(s.Z) || !finite(s.Plain) || !finite(s.Score) {
				t.Fatalf("sample %d (%v): %+v", i, x, s)
			}
		}
		for i := range 24 {
			b.Step(&c, int64(i), float64(i%3))
		}
		if s := b.Step(&c, 0, 1.5); !s.OK {
			t.Fatalf("still no score after the absurd values left: %+v", b)
		}
	})
}
