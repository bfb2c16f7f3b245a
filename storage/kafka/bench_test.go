package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/doppel-iot/doppel/actors/host"
)

// fleet is the records of a partition's batches: 150 bytes, half of them noise.
func fleet(batch int) []host.Record {
	recs := make([]host.Record, batch)
	for i := range recs {
		v := make([]byte, 150)
		for j := range v {
			v[j] = byte(j)
			if j%2 == 0 {
				v[j] = byte(i*31 + j*j*7)
			}
		}
		recs[i] = host.Record{N: uint64(i), Key: fmt.Appendf(nil, "device-%06d", i*997%100_000), Value: v}
	}
	return recs
}

// counter is a host.Acks that counts.
type counter struct {
	done   atomic.Int64
	failed atomic.Int64
	want   int64
	all    chan struct{}
}

func (c *counter) Ack(_ uint64, _ int64, err error) {
	if err != nil {
		c.failed.Add(1)
	}
	if c.done.Add(1) == c.want {
		close(c.all)
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppend is flat out, batches of 100 to each of 8 partitions. With the embedded log, its
// broker's CPU is in the figure.
func BenchmarkAppend(b *testing.B) {
	for _, be := range backends() {
		b.Run(be.name, func(b *testing.B) {
			cfg := be.config(b)
			cfg.Partitions = 8
			l := open(b, cfg).Changelog()
			const batch = 100
			recs := fleet(batch)
			run := func(batches int) {
				c := &counter{want: int64(batches) * batch, all: make(chan struct{})}
				for i := range batches {
					l.Append(b.Context(), int32(i%8), recs, c)
				}
				<-c.all
				if n := c.failed.Load(); n > 0 {
					b.Fatalf("%d records failed", n)
				}
			}
			run(3000) // slots, connections, buffers
			b.ReportAllocs()
			b.ResetTimer()
			used := cpu()
			run((b.N + batch - 1) / batch)
			b.ReportMetric(float64(cpu()-used)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkRead reads one partition from its start, an operation being a record.
func BenchmarkRead(b *testing.B) {
	for _, be := range backends() {
		b.Run(be.name, func(b *testing.B) {
			l := open(b, be.config(b)).Changelog()
			const count = 1_000_000
			recs := fleet(500)
			c := &counter{want: count, all: make(chan struct{})}
			for i := 0; i < count; i += len(recs) {
				l.Append(b.Context(), 0, recs, c)
			}
			<-c.all
			b.ReportAllocs()
			b.ResetTimer()
			used := cpu()
			for left := b.N; left > 0; left -= count {
				n := 0
				if err := l.Read(b.Context(), 0, 0, int64(min(left, count)), func(host.LogRecord) error {
					n++
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu()-used)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// TestPaced measures latency and CPU at a given rate, for choosing Linger and the number of
// partitions. It runs where DOPPEL_BENCH_RATE gives records/s; a tick of a partition's loop is 1 ms.
func TestPaced(t *testing.T) {
	rate, err := strconv.Atoi(os.Getenv("DOPPEL_BENCH_RATE"))
	if err != nil {
		return // a measurement, asked for by its variable
	}
	partitions, _ := strconv.Atoi(os.Getenv("DOPPEL_BENCH_PARTITIONS"))
	for _, be := range backends() {
		for _, linger := range []time.Duration{-1, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", be.name, linger), func(t *testing.T) {
				cfg := be.config(t)
				cfg.Linger, cfg.Partitions = linger, int32(max(partitions, 1))
				l := open(t, cfg).Changelog()
				paced(t, l, rate, cfg.Partitions, 4*time.Second)
			})
		}
	}
}

type timed struct {
	at   []atomic.Int64 // when a record was appended, by n
	hist *hdrhistogram.Histogram
	done atomic.Int64
}

func (a *timed) Ack(n uint64, _ int64, _ error) {
	a.hist.RecordValue(time.Now().UnixNano() - a.at[n%uint64(len(a.at))].Load())
	a.done.Add(1)
}

func paced(t *testing.T, l *Log, rate int, partitions int32, d time.Duration) {
	t.Helper()
	recs := fleet(1000)
	a := &timed{at: make([]atomic.Int64, 1<<20), hist: hdrhistogram.New(1000, 60e9, 3)}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, start := cpu(), time.Now()
	sent, p := 0, int32(0)
	batch := make([]host.Record, 0, 1000)
	for elapsed := time.Duration(0); elapsed < d; elapsed = time.Since(start) {
		due := int(elapsed.Seconds()*float64(rate)) - sent
		for due > 0 { // dealt out to all partitions, as devices are
			n := min(due, max(1, due/int(partitions)+1), len(recs))
			batch = append(batch[:0], recs[:n]...)
			now := time.Now().UnixNano()
			for i := range batch {
				batch[i].N = uint64(sent + i)
				a.at[uint64(sent+i)%uint64(len(a.at))].Store(now)
			}
			l.Append(t.Context(), p, batch, a)
			sent, due, p = sent+n, due-n, (p+1)%partitions
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
	for a.done.Load() < int64(sent) {
		runtime.Gosched()
	}
	spent := cpu() - used
	runtime.ReadMemStats(&after)
	t.Logf("%d records/s, %d partitions: cpu %.2f us/record, p50 %.2f ms, p99 %.2f ms, max %.1f ms, %.1f allocs/record",
		rate, partitions, float64(spent.Microseconds())/float64(sent),
		float64(a.hist.ValueAtQuantile(50))/1e6, float64(a.hist.ValueAtQuantile(99))/1e6, float64(a.hist.Max())/1e6,
		float64(after.Mallocs-before.Mallocs)/float64(sent))
}

// BenchmarkFsync is what writing through to the disk costs on the embedded log: records at a rate
// below what it takes, in ticks of 1 ms over 8 partitions. Latency is from Append to Ack.
func BenchmarkFsync(b *testing.B) {
	for _, fsync := range []bool{false, true} {
		for _, rate := range []int{1000, 3000, 10_000} {
			b.Run(fmt.Sprintf("fsync=%t/rate=%d", fsync, rate), func(b *testing.B) {
				e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: b.TempDir(), Fsync: fsync})
				if err != nil {
					b.Fatal(err)
				}
				cfg := local(e)
				cfg.Dialer = e.Dialer()
				c, err := Open(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				pace(b, c.Changelog(), rate, EmbeddedPartitions)
				if err := errors.Join(c.Close(), e.Close()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// pace appends b.N records at a rate.
func pace(b *testing.B, l *Log, rate int, partitions int32) {
	b.Helper()
	recs := fleet(1000)
	a := &timed{at: make([]atomic.Int64, 1<<20), hist: hdrhistogram.New(1000, 60e9, 3)}
	b.ResetTimer()
	used, start := cpu(), time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	one := make([]host.Record, 1)
	for sent, p := 0, int32(0); sent < b.N; <-tick.C {
		now := time.Now()
		for due := min(b.N, int(now.Sub(start).Seconds()*float64(rate))); sent < due; sent++ {
			one[0] = recs[sent%len(recs)]
			one[0].N = uint64(sent)
			a.at[sent%len(a.at)].Store(now.UnixNano())
			l.Append(b.Context(), p, one, a)
			p = (p + 1) % partitions
		}
	}
	for a.done.Load() < int64(b.N) {
		<-tick.C
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-us/record")
	b.ReportMetric(float64(a.hist.ValueAtQuantile(50))/1e6, "p50-ms")
	b.ReportMetric(float64(a.hist.ValueAtQuantile(99))/1e6, "p99-ms")
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "records/s")
}

// BenchmarkIngest is the slow path from Append to take: one message at a time, and as many as go.
func BenchmarkIngest(b *testing.B) {
	for _, be := range backends() {
		for _, window := range []int{1, 2000} {
			b.Run(fmt.Sprintf("%s/window=%d", be.name, window), func(b *testing.B) {
				cfg := be.config(b)
				cfg.Linger = -1
				in := open(b, cfg).Ingest()
				gate := make(chan struct{}, window)
				ctx, cancel := context.WithCancel(b.Context())
				var wg sync.WaitGroup
				for p := range cfg.Partitions {
					wg.Go(func() {
						_ = in.Follow(ctx, p, 0, func(rs []host.IngestRecord) error {
							for range rs {
								<-gate
							}
							return nil
						})
					})
				}
				m := host.Message{Kind: host.Telemetry, Device: []byte("pump-1"), Payload: make([]byte, 150), ReceivedAt: 1, Topic: "devices"}
				send := func(n int) {
					for i := range n {
						gate <- struct{}{}
						in.Append(b.Context(), int32(i)%cfg.Partitions, &m, func(err error) {
							if err != nil {
								b.Error(err)
							}
						})
					}
					for len(gate) > 0 {
						runtime.Gosched()
					}
				}
				send(10)
				b.ReportAllocs()
				b.ResetTimer()
				used := cpu()
				send(b.N)
				b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-us/record")
				cancel()
				wg.Wait()
			})
		}
	}
}
