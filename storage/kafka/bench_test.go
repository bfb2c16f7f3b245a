package kafka

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
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
