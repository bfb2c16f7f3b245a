package host

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

// BenchmarkTwinMemory reports what a hot twin with three metrics and full windows costs: its state,
// its actor, and its places in the partition and in the actor engine.
func BenchmarkTwinMemory(b *testing.B) {
	const twins, samples = 100_000, 40
	for b.Loop() {
		before := heap()
		o := crowd(b, twins, samples)
		b.ReportMetric(float64(heap()-before)/twins, "B/twin")
		runtime.KeepAlive(o)
	}
}

// BenchmarkPassiveMemory reports what the same twins cost once they are passive, what is left behind
// in the maps that they were in when hot included, and how long it takes to put one to rest and to
// wake it again.
func BenchmarkPassiveMemory(b *testing.B) {
	const twins = 20_000
	for _, samples := range []uint64{40, 600} {
		b.Run(fmt.Sprintf("samples=%d", samples), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				o := crowd(b, twins, samples)
				o.now += int64(time.Hour)
				for _, c := range o.twins { // their data is stale
					o.event.Input, _ = c.twin.Wake(o.now, o.host.cfg.Limits)
					o.step(c)
				}
				began := time.Now()
				for len(o.twins) > 0 {
					o.now += wheelTick
					o.sweep()
				}
				rest := time.Since(began)
				size := 0
				for _, p := range o.idle.passive {
					size += len(p.encoded())
				}
				o.wheel.advance(o.now+int64(time.Minute), func(*cell) {}) // what it held of hot ones is void
				b.ReportMetric(float64(heap()-before)/twins, "B/twin")
				b.ReportMetric(float64(size)/twins, "encoded-B/twin")
				b.ReportMetric(float64(rest.Nanoseconds())/twins, "ns/rest")
				began = time.Now()
				for _, p := range maps.Clone(o.idle.passive) {
					if c := o.activate(p); c.quarantined {
						b.Fatalf("%s cannot be read", c.id())
					}
				}
				b.ReportMetric(float64(time.Since(began).Nanoseconds())/twins, "ns/wake")
				runtime.KeepAlive(o)
			}
		})
	}
}

// quiet is an owner of a partition without a log.
func quiet(tb testing.TB, change func(*Config)) *owner {
	tb.Helper()
	cfg := Config{
		Node: "n", Partitions: 1, Changelog: noLog{}, State: noLog{}, Ingest: noIngest{}, DeadLetters: noLog{}, Alerts: noLog{},
		Clock: func() int64 { return 1 }, Nonce: func() uint64 { return 1 }, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	o := newOwner(h.parts[0])
	o.wheel, o.idle.wheel = newWheel[*cell](1, wheelTick), newWheel[*passive](1, idleTick)
	return o
}

// feedTwin steps the next sample of a twin, a second after the one before it.
func feedTwin(tb testing.TB, o *owner, c *cell) {
	tb.Helper()
	s := c.twin.Seq() + 1
	o.now = max(o.now, int64(1e18+s*1e9))
	readings := [...]twin.Reading{{Name: "pressure"}, {Name: "temperature"}, {Name: "vibration"}}
	for r := range readings {
		readings[r].Value = float64(s%7) + float64(r)
		if r > 0 {
			readings[r].Value += float64(s*s%89) / 1000
		}
	}
	o.event.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: o.now, Sample: twin.Sample{
		Numbered: true, Timed: true, Boot: 1, Seq: s, Time: o.now, Readings: readings[:],
	}}
	if !o.step(c) || o.event.Effects.Outcome != twin.Applied {
		tb.Fatalf("sample %d: %v", s, o.event.Effects.Outcome)
	}
}

// crowd is a partition of twins that have been fed.
func crowd(tb testing.TB, twins int, samples uint64) *owner {
	tb.Helper()
	o := quiet(tb, nil)
	for i := range twins {
		c := o.newCell(fmt.Sprintf("device-%06d", i))
		o.adopt(c)
		o.now = 0
		for range samples {
			feedTwin(tb, o, c)
		}
		o.wheel.schedule(c, c.twin.Due())
	}
	return o
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
	Log
	DeadLetters
	AlertLog
}

// noIngest is a door that nothing comes through.
type noIngest struct{ Ingest }

// Bounds implements Log.
func (noLog) Bounds(context.Context, int32) (start, end int64, err error) { return 0, 0, nil }

// Append implements Log: nothing is ever acknowledged.
func (noLog) Append(context.Context, int32, []Record, Acks) {}
