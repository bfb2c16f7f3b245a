package questdb

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/doppel-iot/doppel/actors/history"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// OffsetAt has all of the log searched: its records bear no times.
func (l *testLog) OffsetAt(context.Context, int32, int64) (int64, error) { return 0, nil }

// readable is a QuestDB that a Writer fills, as a history.Store.
type readable struct {
	*Reader
	w *Writer
}

func (r readable) Settled(_ context.Context, p int32) (host.Cursor, bool, error) {
	c, ok := r.w.Settled(p)
	return c, ok, nil
}

// recorded writes a history that has everything in it: late samples, three of one time, an unnumbered device,
// numbers used twice, metrics whose names clash or come when there are no more columns, values of all sizes.
func recorded(l *testLog, offer func(*host.Rows)) {
	random := rand.New(rand.NewPCG(1, 2))
	value := func(i int) float64 {
		switch i % 5 {
		case 0:
			return float64(i)
		case 1:
			return random.NormFloat64() * 1e-9
		case 2:
			return math.Nextafter(float64(i), math.Inf(1))
		case 3:
			return 1e17 + float64(i)
		}
		return random.Float64()
	}
	l.claim()
	for i := range 400 {
		if i == 200 {
			l.claim()
		}
		device := []string{"a", "aa:bb:cc"}[i%2]
		n := i/2 + 1
		a := sample(n, "temperature", value(i), "Temperature", -value(i), fmt.Sprintf("m%d", i%7), value(i+1))
		if n > 30 {
			a[0].Readings[0].Z = random.NormFloat64()
		}
		switch {
		case n%10 == 0:
			a[0].Late, a[0].Time = true, t0+int64(n-5)*1e9 // of the time of another one
			a[0].Readings[0].Z = math.NaN()
		case n%10 == 3:
			a[0].Boot, a[0].Time = 2, t0+int64(n-8)*1e9
		case n%10 == 7 && n > 50: // what it had sent before, after a reset
			a[0].Seq, a[0].Time = uint64(n-30), t0+int64(n-30)*1e9
		}
		offer(l.event(device, a))
		if i%50 == 0 {
			u := twin.AppliedSample{Own: true, Time: t0 + int64(i)*1e9, Count: uint64(i + 1), Readings: []twin.ScoredReading{{Name: "temperature", Value: value(i), Z: 1}}}
			offer(l.event("unnumbered", []twin.AppliedSample{u}))
		}
	}
}

// whole reads an answer in pages.
func whole(t *testing.T, r *history.Reader, q history.Query, source string) (points []history.Point) {
	t.Helper()
	for {
		page, err := r.History(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Source != source {
			t.Fatalf("source %s, want %s", page.Source, source)
		}
		if points = append(points, page.Points...); !page.More {
			return points
		}
		q.After = page.Points[len(page.Points)-1].Place
	}
}

// TestHistoryIsTheSameFromBoth: QuestDB and the log give the same points and the same buckets, whatever QuestDB
// has already, and in pages of any size. Means may differ in their last bits.
func TestHistoryIsTheSameFromBoth(t *testing.T) {
	for _, columns := range []int{200, 4} {
		for name, takes := range map[string]func(i int) bool{
			"all of it": func(int) bool { return true },
			"half":      func(i int) bool { return i < 200 },
			"nothing":   func(int) bool { return false },
		} {
			t.Run(fmt.Sprintf("%s in %d columns", name, columns), func(t *testing.T) {
				database(t)
				f := newFixture(t, Config{MaxMetrics: columns})
				f.started()
				taken := 0
				f.offer(f.log.idle())
				recorded(f.log, func(r *host.Rows) {
					if taken++; takes(taken) && !f.offer(r) {
						t.Error("not taken")
					}
				})
				f.settled()
				conformance(t, f)
			})
		}
	}
}

func conformance(t *testing.T, f *fixture) {
	t.Helper()
	store, err := NewReader(f.cfg.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	partition := func(string) int32 { return onlyPartition }
	rows := history.New(history.Config{Log: f.log, Store: readable{store, f.Writer}, Partition: partition, Logger: testLogger(t)})
	log := history.New(history.Config{Log: f.log, Partition: partition})
	metrics := []string{"temperature", "Temperature", "m0", "m6", "never"}
	for _, device := range []string{"a", "aa:bb:cc", "unnumbered", "nobody"} {
		for _, metric := range metrics {
			for _, span := range [][2]int64{{t0 - 1e9, t0 + 1000e9}, {t0 + 35e9, t0 + 95e9}, {t0 + 35e9 + 1, t0 + 36e9 + 1}} {
				for _, interval := range []int64{0, 1e9, 7_000_000_001, 3600e9} {
					for _, limit := range []int{3, 5000} {
						q := history.Query{Device: device, Metric: metric, Start: span[0], End: span[1], Interval: interval, Limit: limit}
						if limit == 3 && metric != "temperature" {
							continue
						}
						want, got := whole(t, log, q, history.FromLog), whole(t, rows, q, history.FromStore)
						same := cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateEmpty()}
						if interval > 0 {
							same = append(same, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Mean" }, cmpopts.EquateApprox(1e-12, 1e-12)))
						}
						if diff := cmp.Diff(want, got, same); diff != "" {
							t.Fatalf("%s of %s, %v, interval %d, limit %d (-log +questdb):\n%s", metric, device, span, interval, limit, diff)
						}
						if metric == "temperature" && device == "a" && span[1] > t0+500e9 && len(want) < 1 {
							t.Errorf("interval %d: nothing to compare", interval)
						}
					}
				}
			}
		}
	}
}

// TestHistoryOfWhatIsNotInQuestDBYet: what a writer holds back, or has handed over a moment ago, is in the answer.
func TestHistoryOfWhatIsNotInQuestDBYet(t *testing.T) {
	database(t)
	f := newFixture(t, Config{})
	f.started()
	f.log.claim()
	f.offer(f.log.idle())
	store, err := NewReader(f.cfg.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := history.New(history.Config{Log: f.log, Store: readable{store, f.Writer}, Partition: func(string) int32 { return onlyPartition }})
	eventually(t, "the writer knows its cursor", func() bool { _, ok := f.Settled(onlyPartition); return ok })
	for n := 1; n <= 100; n++ {
		f.offer(f.log.event("a", sample(n, "m", float64(n))))
		got := whole(t, r, history.Query{Device: "a", Metric: "m", Start: t0, End: t0 + 1e15, Limit: 10_000}, history.FromStore)
		if len(got) != n || got[n-1].Value != float64(n) {
			t.Fatalf("%d of %d samples", len(got), n)
		}
		time.Sleep(time.Duration(n%7) * time.Millisecond) // so that flushes fall between any two steps
	}
}

// TestHistoryOfANewQuestDB: before there are tables, and when they were dropped, the log has what there is.
func TestHistoryOfANewQuestDB(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.log.event("a", sample(1, "m", 1.0))
	store, err := NewReader(f.cfg.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := history.New(history.Config{Log: f.log, Store: readable{store, f.Writer}, Partition: func(string) int32 { return onlyPartition }})
	q := history.Query{Device: "a", Metric: "m", Start: t0, End: t0 + 1e15, Limit: 10}
	if got := whole(t, r, q, history.FromLog); len(got) != 1 {
		t.Errorf("%d samples before there is a writer", len(got))
	}
	f.started()
	f.offer(f.log.idle())
	eventually(t, "QuestDB has it", func() bool {
		page, err := r.History(t.Context(), q)
		return err == nil && page.Source == history.FromStore && len(page.Points) == 1 && f.LagRecords() == 0
	})
	// A column that came after it was looked for, then none at all.
	a := sample(2, "m", 2.0, "n", 5.0)
	a[0].Readings[0].Z = 1.5
	f.offer(f.log.event("a", a))
	f.settled()
	if got := whole(t, r, q, history.FromStore); len(got) != 2 || got[1].Z != 1.5 {
		t.Errorf("got %v", got)
	}
	f.stop()
	for _, table := range []string{"telemetry", "telemetry_long"} {
		run(t, db, "DROP TABLE "+table)
	}
	eventually(t, "the reader finds out that they are gone", func() bool {
		got, err := store.Points(t.Context(), q)
		return err == nil && len(got) == 0
	})
}

// TestHistoryNamesAreQuoted: a device cannot end a statement.
func TestHistoryNamesAreQuoted(t *testing.T) {
	database(t)
	f := newFixture(t, Config{})
	f.started()
	f.log.claim()
	f.offer(f.log.idle())
	f.offer(f.log.event("a", sample(1, "m", 1.0)))
	f.settled()
	store, err := NewReader(f.cfg.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"' OR 1=1 --", "a'; DROP TABLE telemetry; --", `\' OR '1'='1`} {
		got, err := store.Points(t.Context(), history.Query{Device: name, Metric: name, Start: 1, End: math.MaxInt64, Limit: 10})
		if err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}
