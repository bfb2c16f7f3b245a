package questdb

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// benchRows are rows of 3 metrics with z, of 10,000 devices in turn.
func benchRows(n int) *host.Rows {
	rng := rand.New(rand.NewPCG(1, 2))
	rows := &host.Rows{Partition: onlyPartition, Recycle: func(*host.Rows) {}}
	for i := range n {
		rows.Samples = append(rows.Samples, host.Row{
			Device: fmt.Sprintf("device-%06d", i%10_000), Boot: 3, Seq: uint64(1000 + i/10_000), Time: t0 + int64(i)*100_001,
			Readings: []twin.ScoredReading{
				{Name: "humidity", Value: 40 + 10*rng.Float64(), Z: rng.NormFloat64()},
				{Name: "temperature", Value: 20 + rng.NormFloat64(), Z: rng.NormFloat64()},
				{Name: "vibration", Value: rng.Float64(), Z: rng.NormFloat64()},
			},
		})
	}
	return rows
}

func benchWriter(b *testing.B) *Writer {
	b.Helper()
	w, err := New(Config{URL: serverURL(b)}, newTestLog(), NewFileCursors(b.TempDir()+"/c", ""), &letters{}, testLogger(b))
	if err != nil {
		b.Fatal(err)
	}
	return w
}

// BenchmarkFlush is the whole way to QuestDB, by the row, in flushes of 20,000. cpu is that of this
// process alone.
func BenchmarkFlush(b *testing.B) {
	database(b)
	w := benchWriter(b)
	w.logger = testLogger(b)
	if err := w.connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.parts[onlyPartition] = &partition{id: onlyPartition}
	rows := benchRows(20_000)
	flush := func() {
		w.hold(w.parts[onlyPartition], rows)
		if err := w.flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		for i := range rows.Samples {
			rows.Samples[i].Time += int64(2 * time.Second)
		}
		rows.To.Next++
	}
	flush() // makes the columns
	b.ReportAllocs()
	start, n := cpu(b), 0
	for b.Loop() {
		flush()
		n += len(rows.Samples)
	}
	b.ReportMetric(float64(cpu(b)-start)/float64(n), "cpu-ns/row")
	b.ReportMetric(float64(b.Elapsed())/float64(n), "ns/row")
}

// BenchmarkReadBack is what a row costs that is read from the log again.
func BenchmarkReadBack(b *testing.B) {
	w := benchWriter(b)
	log := newTestLog()
	log.claim()
	rows := benchRows(10_000)
	for i := range rows.Samples {
		r := &rows.Samples[i]
		log.event(r.Device, []twin.AppliedSample{{Own: true, Numbered: true, Boot: r.Boot, Seq: r.Seq, Time: r.Time, Readings: r.Readings}})
	}
	w.log = log
	b.ReportAllocs()
	for b.Loop() {
		p := &partition{id: onlyPartition, pos: host.Cursor{Epoch: noEpoch}}
		if err := w.readBack(b.Context(), p, int64(len(log.records))); err != nil {
			b.Fatal(err)
		}
		if len(w.items) != len(rows.Samples) {
			b.Fatalf("%d rows, want %d", len(w.items), len(rows.Samples))
		}
		w.release()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N*len(rows.Samples)), "ns/row")
}
