package host

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/doppel-iot/doppel/actors/twin"
)

// BenchmarkTwinMemory reports what a hot twin with three metrics and full windows costs: its state,
// its actor, and its places in the partition and in the actor engine.
func BenchmarkTwinMemory(b *testing.B) {
	const twins, samples = 100_000, 40
	for b.Loop() {
		h, err := New(Config{
			Node: "n", Partitions: 1, Changelog: noLog{}, DeadLetters: noLog{}, Alerts: noLog{},
			Clock: func() int64 { return 1 }, Nonce: func() uint64 { return 1 }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		o := newOwner(h.parts[0])
		o.wheel = newWheel[*cell](1, wheelTick)
		readings := []twin.Reading{{Name: "pressure"}, {Name: "temperature"}, {Name: "vibration"}}
		for i := range twins {
			c := o.newCell(fmt.Sprintf("device-%06d", i))
			o.adopt(c)
			for s := range uint64(samples) {
				o.now = int64(1e18 + s*1e9)
				for r := range readings {
					readings[r].Value = float64(s%7) + float64(r)
				}
				o.event.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: o.now, Sample: twin.Sample{
					Numbered: true, Timed: true, Boot: 1, Seq: s + 1, Time: o.now, Readings: readings,
				}}
				if !o.step(c) || o.event.Effects.Outcome != twin.Applied {
					b.Fatalf("sample %d: %v", s, o.event.Effects.Outcome)
				}
			}
			o.wheel.schedule(c, c.twin.Due())
		}
		b.ReportMetric(float64(heap()-before)/twins, "B/twin")
		runtime.KeepAlive(o)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// noLog fills the ports of a host that only steps.
type noLog struct {
	Changelog
	DeadLetters
	AlertLog
}
