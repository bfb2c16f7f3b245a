package baseline

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

// noise is a small generator of its own, so that the golden bits never move with a library.
type noise uint64

func (n *noise) next() float64 {
	*n = *n*6364136223846793005 + 1442695040888963407
	return float64(*n>>11)/(1<<53) - 0.5
}

func TestSize(t *testing.T) {
	if got, limit := unsafe.Sizeof(Baseline{}), uintptr(400); got > limit {
		t.Errorf("a Baseline takes %d bytes, want at most %d: a million hot twins keep three each", got, limit)
	}
}

func TestNoScoreBelowMinSamples(t *testing.T) {
	c := Default()
	var b Baseline
	var n noise
	for i := range 40 {
		got := b.Step(&c, int64(i), n.next())
		if want := i >= c.MinSamples; got.OK != want {
			t.Fatalf("sample %d: OK = %v, want %v", i, got.OK, want)
		}
		if count := b.Before(&c).Count; count != uint64(i) {
			t.Fatalf("sample %d: the window before it counts %d", i, count)
		}
	}
}

// Noise of 1e-3 on 1e9: a sum of squares would have no correct digit left.
func TestStableOnLargeOffset(t *testing.T) {
	c := Default()
	var b, shifted Baseline
	var n noise
	for i := range 20_000 {
		e := math.Round(n.next()*1024) / 1024 / 1024 // exact when added to 1e9
		b.Step(&c, int64(i), e)
		shifted.Step(&c, int64(i), 1e9+e)
	}
	plain, far := b.Before(&c), shifted.Before(&c)
	if relative := math.Abs(far.Stddev/plain.Stddev - 1); relative > 1e-4 {
		t.Errorf("stddev at 1e9 is %v, near 0 it is %v", far.Stddev, plain.Stddev)
	}
	if got, want := far.Mean-1e9, plain.Mean; math.Abs(got-want) > 1e-6 {
		t.Errorf("mean at 1e9 is off by %v", got-want)
	}
}

func TestConstant(t *testing.T) {
	c := Default()
	var b Baseline
	for i := range 2000 {
		s := b.Step(&c, int64(i), 0.1)
		if s.OK != (i >= 30) || s.Z != 0 || s.Plain != 0 || s.Score != 0 {
			t.Fatalf("sample %d of a constant: %+v", i, s)
		}
	}
	got := b.Before(&c)
	if want := (Stats{Count: got.Count, Mean: 0.1, Min: 0.1, Max: 0.1}); got != want || got.Count < 448 {
		t.Errorf("stats of a constant: %+v", got)
	}
}

// The first move of what never moved is measured by its size.
func TestFirstMove(t *testing.T) {
	c := Default()
	for _, tc := range []struct {
		constant, move, want float64
		ok                   bool
	}{
		{20, 90, 70 / 0.6, true},
		{20, 20.1, 0.1 / 0.6, true},
		{-5, -10, -5 / 0.15, true},
		{0, 0, 0, true},
		{0, 1, 0, false},
	} {
		var b Baseline
		for i := range 100 {
			b.Step(&c, int64(i), tc.constant)
		}
		s := b.Step(&c, 100, tc.move)
		if s.OK != tc.ok || math.Abs(s.Plain-tc.want) > 1e-9 || s.Z != s.Plain || s.Score != s.Plain {
			t.Errorf("%v after always %v: %+v, want %v, %v", tc.move, tc.constant, s, tc.want, tc.ok)
		}
	}
}

// What was quiet and twitches by a little of the range seen is no sensation.
func TestFloor(t *testing.T) {
	c := Default()
	c.HoldHalfLife = 0
	var b Baseline
	for i := range 1000 {
		b.Step(&c, int64(i), float64(i%100)) // range 99
	}
	for i := range 600 {
		b.Step(&c, int64(i), 50+1e-6*float64(i%2))
	}
	s := b.Step(&c, 0, 51)
	if math.Abs(s.Z) < 1e5 {
		t.Errorf("z %v, want the bare one, which is huge", s.Z)
	}
	if math.Abs(s.Plain) > 1 || s.Plain == 0 {
		t.Errorf("plain %v of a step of 1 %% of the range, want below 1", s.Plain)
	}
}

func TestHoldReportsARiseOnce(t *testing.T) {
	c := Default()
	var b Baseline
	var n noise
	for i := range 512 {
		b.Step(&c, int64(i), n.next())
	}
	first := b.Step(&c, 512, 20)
	second := b.Step(&c, 513, 20)
	third := b.Step(&c, 514, 200)
	if first.Score != first.Plain || first.Score < 10 {
		t.Errorf("first: %+v", first)
	}
	if second.Score != 0 || second.Plain < 5 {
		t.Errorf("the same again: %+v, want plain high and score 0", second)
	}
	if third.Score != third.Plain || third.Plain < second.Plain {
		t.Errorf("higher still: %+v", third)
	}
}

// One absurd value must not blind the floor for good.
func TestRangeForgets(t *testing.T) {
	c := Default()
	var b Baseline
	var n noise
	for i := range 600 {
		b.Step(&c, int64(i), n.next())
	}
	b.Step(&c, 600, 1e6)
	blind := 0.0
	for i := range 500_000 {
		b.Step(&c, int64(i), n.next())
		if i == 1000 {
			blind = b.high - b.low
		}
	}
	if got := b.high - b.low; got > 2 || blind < 1e5 {
		t.Errorf("range %v after 1,000 samples and %v after 500,000, want wide and then about 1", blind, got)
	}
}

// A window of time drops what is older than itself however long the silence was.
func TestTimeWindowAfterSilence(t *testing.T) {
	c := Default()
	c.Window = 8 * time.Second
	var b Baseline
	at := int64(0)
	for i := range 800 {
		at = int64(i) * int64(100*time.Millisecond)
		b.Step(&c, at, float64(i))
	}
	if got := b.Before(&c); got.Count < 70 || got.Count > 80 {
		t.Errorf("count %d of 10 Hz for 8 s, want 70 to 80", got.Count)
	}
	for _, silence := range []struct {
		gap  time.Duration
		most uint64
	}{{3 * time.Second, 50}, {time.Hour, 0}} {
		at += int64(silence.gap)
		b.Step(&c, at, 1)
		if got := b.Before(&c).Count; got > silence.most {
			t.Errorf("%d samples in the window after a silence of %v, want at most %d", got, silence.gap, silence.most)
		}
	}
	b.Step(&c, at-int64(time.Hour), 2)
	if got := b.Before(&c).Count; got != 1 {
		t.Errorf("count %d after time ran back, want the 1 sample of the current pane", got)
	}
}

// A window length may change under a living twin.
func TestConfigChange(t *testing.T) {
	samples, timed := Default(), Default()
	timed.Window = 80 * time.Second
	var b Baseline
	for i := range 1000 {
		b.Step(&samples, int64(i)*int64(time.Second), float64(i))
	}
	b.Step(&timed, 1000*int64(time.Second), 0)
	if got := b.Before(&timed).Count; got < 400 {
		t.Errorf("window holds %d right after the change, want what it held", got)
	}
	for i := range 200 {
		b.Step(&timed, int64(1000+i)*int64(time.Second), 0)
	}
	if got := b.Before(&timed).Count; got < 70 || got > 80 {
		t.Errorf("window holds %d in the end, want 70 to 80", got)
	}
}

func TestHoldDecay(t *testing.T) {
	for _, half := range []int{1, 2, 10, 149, 150, 151, 5000} {
		c := Config{HoldHalfLife: half}
		if got, want := c.holdDecay(), math.Exp2(-1/float64(half)); math.Abs(got-want) > 2e-16 {
			t.Errorf("half-life %d: decay %v, want %v", half, got, want)
		}
	}
}

// Replay on another processor must give the same bits.
func TestGoldenBits(t *testing.T) {
	for _, tc := range []struct {
		name   string
		window time.Duration
		want   [6]uint64
	}{
		{name: "samples", want: [6]uint64{
			0xfaa9e53863115eff, 0x4036c5f11a86f8ee, 0x404a7507e31ebf35, 0xc066aa3c30145fda, 0x406b9f81921b723e, 0x3ffd19719091772c,
		}},
		{name: "time", window: 100 * time.Second, want: [6]uint64{
			0x643ce905b49ea1d5, 0x403398915d4e12b9, 0x40159c1ee32b3fcc, 0xc062d9baf36492d2, 0x4069e3a333c523ef, 0x3ffa4fa6bb6959a9,
		}},
	} {
		c := Default()
		c.Window = tc.window
		var b Baseline
		var n noise
		var sum uint64
		var s Score
		for i := range 10_000 {
			s = b.Step(&c, int64(i)*int64(time.Second), 20+math.Abs(n.next())*n.next()*float64(1+i%900))
			for _, f := range []float64{s.Z, s.Plain, s.Score} {
				sum = sum*31 + math.Float64bits(f)
			}
		}
		w := b.Before(&c)
		got := [6]uint64{
			sum, math.Float64bits(w.Mean), math.Float64bits(w.Stddev),
			math.Float64bits(b.low), math.Float64bits(b.high), math.Float64bits(b.peak),
		}
		if got != tc.want {
			t.Errorf("%s: %#x, want %#x", tc.name, got, tc.want)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	c := Default()
	var base Baseline
	var n noise
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		base.Step(&c, int64(i), n.next())
	}
}

func BenchmarkStepAndBefore(b *testing.B) {
	c := Default()
	var base Baseline
	var n noise
	b.ReportAllocs()
	var count uint64
	for i := 0; b.Loop(); i++ {
		base.Step(&c, int64(i), n.next())
		count += base.Before(&c).Count
	}
	if count == 0 {
		b.Fatal("an empty window")
	}
}
