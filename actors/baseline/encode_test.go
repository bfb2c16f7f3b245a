package baseline

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/state"
)

// again is the baseline after a way through its encoding.
func again(t interface{ Fatalf(string, ...any) }, b *Baseline, near int64) *Baseline {
	encoded := b.Encode(nil, near)
	in := state.NewReader(encoded, nil)
	var got Baseline
	got.Decode(&in, near)
	if in.Err() != nil || in.Len() != 0 {
		t.Fatalf("decode: %v, %d bytes left over", in.Err(), in.Len())
	}
	if !bytes.Equal(got.AppendState(nil), b.AppendState(nil)) {
		t.Fatalf("decoded:\n%+v\nwant:\n%+v", got, *b)
	}
	return &got
}

// TestEncode: between any two samples an encoding and its decoding change nothing, bit for bit.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Default()
		if rapid.Bool().Draw(t, "window of time") {
			c.Window = 80 * time.Second
		} else {
			c.WindowSamples = rapid.SampledFrom([]int{8, 64, 512}).Draw(t, "window")
		}
		decimals := math.Pow10(rapid.IntRange(0, 7).Draw(t, "decimals"))
		wild := rapid.IntRange(0, 30).Draw(t, "wild every")
		var plain, coded Baseline
		at := rapid.Int64().Draw(t, "start") / 4
		near := at + rapid.Int64Range(-1e12, 1e12).Draw(t, "near")
		for i := range rapid.IntRange(0, 600).Draw(t, "samples") {
			x := math.Round(rapid.Float64Range(-300, 300).Draw(t, "x")*decimals) / decimals
			if wild > 0 && i%wild == wild-1 {
				x = rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1e300, math.Pi, -1e15, 5e-324, math.MaxFloat64}).Draw(t, "wild")
			}
			at += rapid.Int64Range(-1e9, 3e9).Draw(t, "passed")
			coded = *again(t, &coded, near)
			if got, want := coded.Step(&c, at, x), plain.Step(&c, at, x); got != want {
				t.Fatalf("sample %d: score %+v, want %+v", i, got, want)
			}
		}
		again(t, &plain, near)
	})
}

// TestEncodedSize keeps an eye on what full windows take, for what sensors send and for noise.
func TestEncodedSize(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct {
		name   string
		most   int
		sample func() float64
	}{
		{"constant", 65, func() float64 { return 230 }},
		{"switch", 90, func() float64 { return float64(random.IntN(2)) }},
		{"tenths", 130, func() float64 { return math.Round(random.NormFloat64()*20+200) / 10 }},
		{"thousandths", 175, func() float64 { return math.Round(random.NormFloat64()*300+21500) / 1000 }},
		{"noise", 310, random.NormFloat64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Default()
			var b Baseline
			for i := range int64(5000) {
				b.Step(&c, i*1e9, tc.sample())
			}
			size := len(b.Encode(nil, 5000e9))
			t.Logf("%d bytes", size)
			if size > tc.most {
				t.Errorf("%d bytes, want at most %d", size, tc.most)
			}
			again(t, &b, 5000e9)
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	c := Default()
	var base Baseline
	random := rand.New(rand.NewPCG(1, 2))
	for i := range int64(5000) {
		base.Step(&c, i*1e9, math.Round(random.NormFloat64()*300+21500)/1000)
	}
	var encoded []byte
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			encoded = base.Encode(encoded[:0], 5000e9)
		}
		b.ReportMetric(float64(len(encoded)), "B")
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			in := state.NewReader(encoded, nil)
			base.Decode(&in, 5000e9)
		}
	})
}
