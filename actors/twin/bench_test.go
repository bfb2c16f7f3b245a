package twin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

func builtin(tb testing.TB) *alert.Set {
	tb.Helper()
	set, err := alert.NewSet(alert.Builtin())
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// fleetSample is sample seq of a device with three metrics that move a little.
func fleetSample(in *twin.Input, readings []twin.Reading, seq uint64) {
	at := int64(1_795_341_600_000_000_000) + int64(seq)*100_000_000
	for i, name := range [...]string{"pressure", "temperature", "vibration"} {
		readings[i] = twin.Reading{Name: name, Value: 20 + float64((seq*uint64(7+i))%13)/10}
	}
	*in = twin.Input{
		Kind: twin.KindSample, ReceivedAt: at,
		Sample: twin.Sample{Numbered: true, Timed: true, Boot: 1, Seq: seq, Time: at, Readings: readings},
	}
}

func BenchmarkStepInOrder(b *testing.B) {
	rules := builtin(b)
	tw := twin.New("pump-1", 0)
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	seq := uint64(0)
	for ; seq < 2000; seq++ {
		fleetSample(&in, readings, seq+1)
		tw.Step(in.ReceivedAt, &in, rules, &out)
	}
	b.ReportAllocs()
	for b.Loop() {
		seq++
		fleetSample(&in, readings, seq)
		tw.Step(in.ReceivedAt, &in, rules, &out)
		if out.Outcome != twin.Applied {
			b.Fatal(out.Outcome)
		}
	}
}

// BenchmarkStepHeld delivers every two samples in the wrong order; one operation is one sample.
func BenchmarkStepHeld(b *testing.B) {
	rules := builtin(b)
	tw := twin.New("pump-1", 0)
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	fleetSample(&in, readings, 1)
	tw.Step(in.ReceivedAt, &in, rules, &out)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		fleetSample(&in, readings, 2+(n^1))
		tw.Step(in.ReceivedAt, &in, rules, &out)
		if want := [...]twin.Outcome{twin.Held, twin.Applied}[n%2]; out.Outcome != want {
			b.Fatal(out.Outcome)
		}
		n++
	}
}

// BenchmarkMemory reports the heap of one twin with three metrics that has been in use.
func BenchmarkMemory(b *testing.B) {
	const twins = 100_000
	rules := builtin(b)
	ids := make([]string, twins)
	for i := range ids {
		ids[i] = fmt.Sprintf("device-%06d", i)
	}
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	for b.Loop() {
		before := heap()
		all := make([]*twin.Twin, twins)
		for i, id := range ids {
			tw := twin.New(id, 1)
			for seq := uint64(1); seq <= 10; seq++ {
				fleetSample(&in, readings, seq)
				tw.Step(in.ReceivedAt, &in, rules, &out)
			}
			all[i] = tw
		}
		b.ReportMetric(float64(heap()-before)/twins, "B/twin")
		runtime.KeepAlive(all)
	}
	b.ReportMetric(0, "ns/op")
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkEncode encodes and decodes twins with three metrics and full windows; B is the size.
func BenchmarkEncode(b *testing.B) {
	rules := builtin(b)
	random := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct {
		name  string
		value func() float64
	}{
		{"tenths", func() float64 { return math.Round(random.NormFloat64()*30+200) / 10 }},
		{"thousandths", func() float64 { return math.Round(random.NormFloat64()*300+21500) / 1000 }},
		{"noise", random.NormFloat64},
	} {
		tw := twin.New("pump-1", 1_795_341_600_000_000_000)
		var in twin.Input
		var out twin.Effects
		readings := make([]twin.Reading, 3)
		for seq := range uint64(3000) {
			fleetSample(&in, readings, seq+1)
			for i := range readings {
				readings[i].Value = tc.value()
			}
			in.ReceivedAt += random.Int64N(50_000_000)
			tw.Step(in.ReceivedAt+random.Int64N(1_000_000), &in, rules, &out)
		}
		encoded := tw.Encode(nil)
		b.Run("encode/"+tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encoded = tw.Encode(encoded[:0])
			}
			b.ReportMetric(float64(len(encoded)), "B")
		})
		names := map[string]string{"pressure": "pressure", "temperature": "temperature", "vibration": "vibration"}
		b.Run("decode/"+tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var got twin.Twin
				if err := got.Decode("pump-1", encoded, func(n []byte) string { return names[string(n)] }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
