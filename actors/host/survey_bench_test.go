package host

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/actors/twin"
)

// million is a host of a million passive twins in eight partitions, one of ten online. Each partition is
// served by a goroutine that does nothing but answer calls; turns gets how long each of them took.
func million(b *testing.B, turns func(time.Duration)) *Host {
	b.Helper()
	const twins, partitions, templates = 1_000_000, 8, 100
	h := quiet(b, func(cfg *Config) { cfg.Partitions = partitions }).host
	encoded := make([]string, templates)
	facts := make([]*twin.Twin, templates)
	maker := quiet(b, nil)
	for i := range encoded {
		c := maker.newCell("maker")
		maker.now = 0
		for range 600 + i {
			feedTwin(b, maker, c)
		}
		if i%10 != 0 {
			maker.event.Input = twin.Input{Kind: twin.KindStatus, ReceivedAt: maker.now}
			maker.step(c)
		}
		encoded[i], facts[i] = string(c.twin.Encode(nil)), &c.twin
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	b.Cleanup(func() { close(stop); wg.Wait() })
	for n, p := range h.parts {
		o := newOwner(p)
		o.epoch, o.served, o.now = 1, true, 1
		o.vigil.verified = 1
		o.wheel, o.idle.wheel = newWheel[*cell](1, wheelTick), newWheel[*passive](1, idleTick)
		for i := n; i < twins; i += partitions {
			id := fmt.Sprintf("device-%06d", i)
			q := &passive{memory: id + encoded[i/partitions%templates], idLen: uint8(len(id))}
			o.idle.passive[q.id()] = q
			o.roster.enterPassive(q, facts[i/partitions%templates])
		}
		p.show(&View{ID: p.id, State: Serving})
		p.box.open()
		wg.Go(func() {
			for {
				select {
				case <-p.box.wake:
				case <-stop:
					return
				}
				for _, call := range p.box.takeCalls() {
					began := time.Now()
					call(o)
					turns(time.Since(began))
				}
			}
		})
	}
	return h
}

// BenchmarkSelectMillion asks a million passive twins; turn-max-us is the longest that a partition, and
// so its input, waited for it.
func BenchmarkSelectMillion(b *testing.B) {
	var mu sync.Mutex
	var turns []time.Duration
	h := million(b, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		turns = append(turns, d)
	})
	for _, tc := range []struct{ filter, order string }{
		{``, ``},
		{`online`, ``},
		{`size(open_alerts) > 0`, ``},
		{`online && metrics["temperature"].value > 3`, ``},
		{`metrics["vibration"].value > 3 && counters.applied > 100`, ``},
		{`metrics["vibration"].value > 3`, `metrics["vibration"].value desc`},
		{`metrics["vibration"].z > 1.5 && reported.a == 1`, ``},
	} {
		b.Run(fmt.Sprintf("%s by %s", tc.filter, tc.order), func(b *testing.B) {
			turns = turns[:0]
			q := &Query{Filter: compiled(b, tc.filter), Order: ordered(b, tc.order), Limit: 100}
			before := used(b)
			for b.Loop() {
				var wg sync.WaitGroup
				for p := range h.parts {
					wg.Go(func() {
						if _, err := h.Select(b.Context(), int32(p), q); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(float64((used(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
			slices.Sort(turns)
			b.ReportMetric(float64(turns[len(turns)-1].Microseconds()), "turn-max-us")
			b.ReportMetric(float64(turns[len(turns)*99/100].Microseconds()), "turn-p99-us")
		})
	}
	by := &selection.Grouping{Kind: selection.ByOnline, Metrics: []string{"temperature"}, Quantiles: []float64{0.5}}
	b.Run("summarize", func(b *testing.B) {
		for b.Loop() {
			var wg sync.WaitGroup
			for p := range h.parts {
				wg.Go(func() {
					if err := h.Summarize(b.Context(), int32(p), filter.Filter{}, by, selection.NewGroups(by)); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
		}
	})
}

// used is the CPU time of this process so far: unlike the clock it means the same on a busy machine.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
