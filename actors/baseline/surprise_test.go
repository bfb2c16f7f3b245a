package baseline

import (
	"math"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

const monday = 1_795_392_000 * int64(time.Second) // 2026-11-23 00:00 UTC

// season is a day's swing with noise, a sample each five minutes.
func season(n *noise, i int) (at int64, x float64) {
	at = monday + int64(i)*int64(5*time.Minute)
	return at, 50 + 20*math.Sin(2*math.Pi*float64(i%288)/288) + n.next()
}

func TestSurpriseInASeason(t *testing.T) {
	for _, tc := range []struct {
		name  string
		value func(i int, usual float64) float64
		part  func(Parts) float64
	}{
		{
			// Within the range of the day, but at the wrong hour.
			"residual", func(_ int, usual float64) float64 { return 100 - usual },
			func(p Parts) float64 { return p.Residual },
		},
		{"calm", func(int, float64) float64 { return 55 }, func(p Parts) float64 { return p.Calm }},
		{"breakout", func(_ int, usual float64) float64 { return usual + 30 }, func(p Parts) float64 { return p.Breakout }},
		{"drift", func(_ int, usual float64) float64 { return usual + 4 }, func(p Parts) float64 { return p.Drift }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Surprise
			var n noise
			const from, length = 20*288 + 70, 60 // at the crest: on a flank a shift hides in the slope
			usual, odd, part := 0.0, 0.0, 0.0
			for i := range from + length {
				at, x := season(&n, i)
				if i >= from {
					p := s.Step(at, tc.value(i, x))
					odd, part = max(odd, p.Score), max(part, tc.part(p))
					continue
				}
				if p := s.Step(at, x); i > 10*288 {
					usual = max(usual, p.Score)
				}
			}
			if usual >= 4.75 {
				t.Errorf("an ordinary day scored %v", usual)
			}
			if odd < 4.75 || part < 1 {
				t.Errorf("score %v with a part of %v from %s, want an alarm", odd, part, tc.name)
			}
		})
	}
}

func TestSurpriseIsQuietFirst(t *testing.T) {
	var s Surprise
	var n noise
	for i := range 200 {
		at, x := season(&n, i)
		p := s.Step(at, x*1000*n.next())
		if p.OK != (i >= surpriseAfter) || (!p.OK && p != Parts{}) {
			t.Fatalf("sample %d: %+v", i, p)
		}
	}
}

func TestSurpriseOfAConstant(t *testing.T) {
	var s Surprise
	for i := range 5000 {
		if p := s.Step(monday+int64(i)*int64(time.Minute), 0.1); p.Score > 1 {
			t.Fatalf("sample %d of a constant: %+v", i, p)
		}
	}
}

func TestSurpriseIsFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Surprise
		value := rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1, 1), rapid.SampledFrom([]float64{0, math.MaxFloat64, -math.MaxFloat64, 1e-310}))
		length := rapid.IntRange(1, 150).Draw(t, "length")
		for _, x := range rapid.SliceOfN(value, length, length).Draw(t, "values") {
			p := s.Step(rapid.Int64Range(math.MinInt64/2, math.MaxInt64/2).Draw(t, "at"), x)
			for _, f := range []float64{p.Residual, p.Drift, p.Calm, p.Breakout, p.Total, p.Score} {
				if !finite(f) || f < 0 {
					t.Fatalf("%v gave %+v", x, p)
				}
			}
		}
	})
}

// The tail's answer lies between those for the edges of the bin.
func TestTailAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tl tail
		xs := rapid.SliceOfN(rapid.Float64Range(0.01, 50), 1, 200).Draw(t, "values")
		for _, x := range xs {
			tl.learn(x)
		}
		v := rapid.Float64Range(0.01, slices.Max(xs)).Draw(t, "value")
		count := func(limit float64) (n float64) {
			for _, x := range xs {
				if x > limit {
					n++
				}
			}
			return n
		}
		rare := func(above float64) float64 { return -math.Log10((above + 1) / float64(len(xs)+2)) }
		const octave = 1.27 // a bin is 2^(1/3) wide
		got := tl.surprise(v)
		if bin, _ := binOf(v); bin <= tl.base {
			return // the lowest bin holds all that is smaller
		}
		if least, most := rare(count(v/octave)), rare(count(v*octave)); got < least-1e-9 || got > most+1e-9 {
			t.Fatalf("surprise of %v is %v, want %v to %v", v, got, least, most)
		}
	})
}

func TestTailBeyondRecord(t *testing.T) {
	var tl tail
	for range 1_000 {
		tl.learn(1)
	}
	at, near, far := tl.surprise(1), tl.surprise(1.5), tl.surprise(1e6)
	if at > 0.01 || near < 3 || near >= mostSurprise || far != mostSurprise {
		t.Errorf("surprise at the record %v, above it %v, far above %v", at, near, far)
	}
	tl.learn(1e30)
	if got := tl.surprise(1); got > 0.01 {
		t.Errorf("after the bins moved up 1 surprises by %v", got)
	}
}

func TestLn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(1e-300, 1e300).Draw(t, "x")
		if got, want := ln(x), math.Log(x); math.Abs(got-want) > 1e-13*(1+math.Abs(want)) {
			t.Fatalf("ln(%v) = %v, want %v", x, got, want)
		}
	})
}

func TestSlotOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(-1e18, 4e18).Draw(t, "at")
		day := time.Unix(0, at).UTC()
		want := day.Hour()
		if w := day.Weekday(); w == time.Saturday || w == time.Sunday {
			want += 24
		}
		if got := slotOf(at); got != want {
			t.Fatalf("slot of %v is %d, want %d", day, got, want)
		}
	})
}

func TestSurpriseGoldenBits(t *testing.T) {
	var s Surprise
	var n noise
	var sum uint64
	for i := range 5000 {
		x := 50 + 20*n.next() + float64(i%288)/10 // no sine: its last bit is the processor's
		p := s.Step(monday+int64(i)*int64(5*time.Minute), x)
		for _, f := range []float64{p.Residual, p.Drift, p.Calm, p.Breakout, p.Score} {
			sum = sum*31 + math.Float64bits(f)
		}
	}
	if want := uint64(0x83926eecb1e29df8); sum != want {
		t.Errorf("bits %#x, want %#x", sum, want)
	}
	if got, limit := unsafe.Sizeof(s), uintptr(1200); got > limit {
		t.Errorf("a Surprise takes %d bytes, want at most %d", got, limit)
	}
}

func BenchmarkSurprise(b *testing.B) {
	var s Surprise
	var n noise
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Step(int64(i)*int64(time.Minute), n.next())
	}
}
