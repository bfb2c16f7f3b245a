package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// store is an inlet that releases messages after a commit time, in batches, as a log does.
type store struct {
	commit  time.Duration
	taken   atomic.Int64
	mu      sync.Mutex
	pending []batch
}

type batch struct {
	due    time.Time
	reply  host.Reply
	tokens []uint64
}

func (s *store) Deliver(_ context.Context, msgs []host.Message) error {
	s.taken.Add(int64(len(msgs)))
	tokens := make([]uint64, len(msgs))
	for i := range msgs {
		tokens[i] = msgs[i].Token
	}
	if s.commit == 0 {
		msgs[0].Reply.Done(tokens, host.Released)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, batch{time.Now().Add(s.commit), msgs[0].Reply, tokens})
	return nil
}

func (s *store) run(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			n := 0
			for n < len(s.pending) && s.pending[n].due.Before(now) {
				n++
			}
			due := append([]batch(nil), s.pending[:n]...)
			s.pending = s.pending[n:]
			s.mu.Unlock()
			for _, b := range due {
				b.reply.Done(b.tokens, host.Released)
			}
		}
	}
}

func (s *store) Refuse(_ context.Context, _ host.DeadLetter, done func(error)) { done(nil) }

// BenchmarkClientFirehose is the client's share of the way of a message: broker socket to PUBACK, with
// a store that commits in 0 or 5 ms. cpu-ns/op is this process alone; the broker is another.
func BenchmarkClientFirehose(b *testing.B) {
	for _, c := range []struct {
		commit time.Duration
		rm     uint16
	}{{0, 8192}, {5 * time.Millisecond, 1024}, {5 * time.Millisecond, 8192}} {
		b.Run(fmt.Sprintf("commit=%s/rm=%d", c.commit, c.rm), func(b *testing.B) {
			addr := startFirehose(b)
			s := &store{commit: c.commit}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go s.run(ctx)
			door, err := New(Config{URLs: []string{addr}, ClientID: "bench", ReceiveMaximum: c.rm, DrainTimeout: time.Millisecond}, s, s, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- door.Run(ctx) }()
			for s.taken.Load() < 10_000 { // warm
				time.Sleep(time.Millisecond)
			}
			measure(b, s)
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkClear is how long Clear takes while Mosquitto passes on nearly as much as it can (more would
// be a backlog, and Clear waits for its end), with a store that commits in 5 ms.
func BenchmarkClear(b *testing.B) {
	m := startMosquitto(b, recommended)
	s := &store{commit: 5 * time.Millisecond}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go s.run(ctx)
	door, err := New(Config{URLs: []string{m.addr}, ClientID: "bench", DrainTimeout: time.Millisecond}, s, s, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	startProcess(b, publisherEnv+"="+m.addr, paceEnv+"=80ms")
	for s.taken.Load() < 10_000 { // warm
		time.Sleep(time.Millisecond)
	}
	first, start, longest := s.taken.Load(), time.Now(), time.Duration(0)
	for b.Loop() {
		begun := time.Now()
		if err := door.Clear(ctx); err != nil {
			b.Fatal(err)
		}
		longest = max(longest, time.Since(begun))
	}
	b.ReportMetric(float64(s.taken.Load()-first)/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkBroker is the embedded broker's share: 100 devices with a window of 32 in another process.
func BenchmarkBroker(b *testing.B) {
	s := &store{commit: 5 * time.Millisecond}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go s.run(ctx)
	door, err := NewBroker(BrokerConfig{Address: "127.0.0.1:0", DrainTimeout: time.Millisecond}, s, s, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	if err := door.Listen(ctx); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	startProcess(b, publisherEnv+"="+door.Addr().String())
	for s.taken.Load() < 10_000 { // warm
		time.Sleep(time.Millisecond)
	}
	measure(b, s)
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// measure reports what b.N messages cost this process.
func measure(b *testing.B, s *store) {
	b.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, first, start := cpuTime(b), s.taken.Load(), time.Now()
	b.ResetTimer()
	for s.taken.Load()-first < int64(b.N) {
		time.Sleep(100 * time.Microsecond)
	}
	b.StopTimer()
	n := float64(s.taken.Load() - first)
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(cpuTime(b)-cpu)/n, "cpu-ns/msg")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/msg")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/msg")
	b.ReportMetric(n/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(0, "ns/op")
}
