package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const second = int64(time.Second)

// t0 is when the log begins.
const t0 = 1_795_341_600 * second

// memory is a partition's log, with the writers' mistakes a real one may have.
type memory struct {
	records []host.LogRecord
	times   []int64 // when each was written
	gone    int64   // offsets below were removed
	reads   int     // records read
}

func (m *memory) Bounds(context.Context, int32) (start, end int64, err error) {
	return m.gone, int64(len(m.records)), nil
}

func (m *memory) Read(_ context.Context, _ int32, from, to int64, fn func(host.LogRecord) error) error {
	if from < m.gone {
		return errors.New("it is gone")
	}
	for _, r := range m.records[from:to] {
		m.reads++
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) OffsetAt(_ context.Context, _ int32, at int64) (int64, error) {
	i := slices.IndexFunc(m.times, func(t int64) bool { return t >= at })
	if i < 0 {
		return int64(len(m.records)), nil
	}
	return max(int64(i), m.gone), nil
}

func (m *memory) add(now int64, key string, ev *codec.Event) {
	ev.Now = now
	m.records = append(m.records, host.LogRecord{Offset: int64(len(m.records)), Key: []byte(key), Value: codec.AppendEvent(nil, ev)})
	m.times = append(m.times, now)
}

func (m *memory) claim(now int64) uint64 {
	m.add(now, "", &codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Claim: &codec.Claim{Node: "n"}})
	return uint64(len(m.records) - 1)
}

// sample is a record of one sample.
func (m *memory) sample(now int64, epoch, n uint64, device string, at Place, value float64) {
	m.add(now, device, &codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: epoch, N: n,
		Input: twin.Input{Kind: twin.KindSample, Sample: twin.Sample{
			Numbered: true, Timed: true, Boot: at.Boot, Seq: at.Seq, Time: at.Time, Readings: []twin.Reading{{Name: "m", Value: value}, {Name: "other", Value: -1}},
		}},
		Effects: twin.Effects{Outcome: twin.Applied, Applied: []twin.AppliedSample{{
			Own: true, Numbered: true, Boot: at.Boot, Seq: at.Seq, Time: at.Time, Count: at.Seq,
			Readings: []twin.ScoredReading{{Name: "m", Value: value, Z: math.NaN(), Score: math.NaN()}, {Name: "other", Value: -1, Z: math.NaN(), Score: math.NaN()}},
		}}},
	})
}

func reader(m *memory) *Reader {
	return New(Config{Log: m, Partition: func(string) int32 { return 0 }})
}

// all reads page by page.
func all(t interface{ Fatal(...any) }, r *Reader, q Query) (points []Point, last Page) {
	for {
		page, err := r.History(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		points, last = append(points, page.Points...), page
		if !page.More {
			return points, last
		}
		q.After = page.Points[len(page.Points)-1].Place
	}
}

// world is a log that was written at random, and what of it counts.
type world struct {
	memory
	truth map[Place]float64
}

// write makes a log in which owners follow each other, their stragglers land behind newer claims, devices
// number anew, send late, and number the same again.
func write(t *rapid.T) *world {
	w := &world{truth: map[Place]float64{}}
	now := t0
	epoch := w.claim(now)
	old, n := uint64(0), uint64(0)
	for i := range rapid.IntRange(1, 120).Draw(t, "records") {
		now += rapid.SampledFrom([]int64{0, 1, second, 20 * 60 * second}).Draw(t, "pause")
		at := Place{Time: now - rapid.SampledFrom([]int64{0, 0, second / 3, 3600 * second}).Draw(t, "late"), Boot: 1, Seq: uint64(rapid.IntRange(1, 40).Draw(t, "seq"))}
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0:
			old, epoch, n = epoch, w.claim(now), 0
		case 1: // a straggler of the owner before, or a second copy
			if old != epoch {
				w.sample(now, old, uint64(i)+1, "d", at, -100)
			} else if n > 0 {
				w.sample(now, epoch, n, "d", at, -100)
			}
		case 2:
			n++
			w.sample(now, epoch, n, "stranger", at, -200)
		case 3:
			w.add(now, "d", &codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_TICK, Epoch: epoch, N: n + 100})
		default:
			n++
			value := float64(rapid.IntRange(-5, 5).Draw(t, "value"))
			w.sample(now, epoch, n, "d", at, value)
			w.truth[at] = value
		}
		if n == 0 { // an owner writes when it has claimed, so that its stragglers' readers know
			n++
			w.sample(now, epoch, n, "stranger", at, -200)
		}
	}
	return w
}

// answer is what the truth says.
func (w *world) answer(q *Query) []Point {
	var rows []row
	for at, v := range w.truth {
		if at.Time >= q.Start && at.Time < q.End {
			rows = append(rows, row{at, v, math.NaN()})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return a.Compare(b.Place) })
	var points []Point
	for _, r := range rows {
		if q.Interval == 0 {
			points = append(points, r.point())
			continue
		}
		at := r.Time - (r.Time-q.Start)%q.Interval
		if n := len(points); n == 0 || points[n-1].Time != at {
			points = append(points, Point{Place: Place{Time: at}, Z: math.NaN(), Min: r.value, Max: r.value})
		}
		p := &points[len(points)-1]
		p.Mean = (p.Mean*float64(p.Count) + r.value) / float64(p.Count+1)
		p.Count++
		p.Min, p.Max = min(p.Min, r.value), max(p.Max, r.value)
	}
	return points
}

var same = cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateApprox(1e-12, 1e-12), cmpopts.EquateEmpty()}

// TestLogTellsTheTruth: whatever stands in the log, an answer has the samples that count, in any pages.
func TestLogTellsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := write(t)
		last := w.times[len(w.times)-1]
		q := Query{Device: "d", Metric: "m", Limit: rapid.IntRange(1, 20).Draw(t, "limit")}
		q.Start = rapid.SampledFrom([]int64{1, t0, t0 + second, (t0 + last) / 2}).Draw(t, "start")
		q.End = rapid.SampledFrom([]int64{q.Start + second, max(last, q.Start+1), last + 3600*second}).Draw(t, "end")
		q.Interval = rapid.SampledFrom([]int64{0, 1, second, 7 * second, 24 * 3600 * second}).Draw(t, "interval")
		got, page := all(t, reader(&w.memory), q)
		if page.RetainedFrom != 0 || page.Source != FromLog {
			t.Fatalf("retained from %d, source %s", page.RetainedFrom, page.Source)
		}
		if diff := cmp.Diff(w.answer(&q), got, same); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// TestLogIsReadFromTheSpanOn: what was written a good while before the span is not read.
func TestLogIsReadFromTheSpanOn(t *testing.T) {
	m := &memory{}
	epoch := m.claim(t0)
	for i := range uint64(10_000) {
		m.sample(t0+int64(i)*second, epoch, i+1, "d", Place{t0 + int64(i)*second, 1, i + 1}, float64(i))
	}
	q := Query{Device: "d", Metric: "m", Start: t0 + 9990*second, End: t0 + 20_000*second, Limit: 100}
	got, page := all(t, reader(m), q)
	if len(got) != 10 || got[0].Value != 9990 || page.RetainedFrom != 0 {
		t.Errorf("%d points, retained from %d", len(got), page.RetainedFrom)
	}
	if most := int(10 + lookBack + ahead/second); m.reads > most {
		t.Errorf("%d records read, want at most %d", m.reads, most)
	}
}

// TestStragglersAtABareOffset: in front of the first claim met, the newest epoch counts.
func TestStragglersAtABareOffset(t *testing.T) {
	m := &memory{}
	old := m.claim(t0)
	epoch := m.claim(t0)
	for i := range uint64(10) { // hours ago
		m.sample(t0, epoch, i+1, "d", Place{t0, 1, i + 1}, 0)
	}
	for i := range uint64(300) {
		m.sample(t0, old, i+1, "d", Place{t0, 1, 77}, -1)
	}
	now := t0 + 5*3600*second
	m.sample(now, old, 301, "d", Place{now, 1, 77}, -1) // landed five hours late
	m.sample(now, old, 302, "d", Place{now, 1, 78}, -1)
	m.sample(now, epoch, 11, "d", Place{now, 1, 11}, 11)
	m.sample(now, old, 303, "d", Place{now, 1, 79}, -1)
	m.sample(now, epoch, 13, "d", Place{now, 1, 13}, -1) // not the next one
	m.sample(now, epoch, 12, "d", Place{now, 1, 12}, 12)
	next := m.claim(now)
	m.sample(now, epoch, 13, "d", Place{now, 1, 14}, -1)
	m.sample(now, next, 1, "d", Place{now, 1, 13}, 13)
	got, _ := all(t, reader(m), Query{Device: "d", Metric: "m", Start: now, End: now + second, Limit: 100})
	var values []float64
	for _, p := range got {
		values = append(values, p.Value)
	}
	if diff := cmp.Diff([]float64{11, 12, 13}, values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWhatRetentionTookIsSaid: from a log without its beginning an answer is what is left, and says so where
// something may be missing.
func TestWhatRetentionTookIsSaid(t *testing.T) {
	m := &memory{}
	epoch := m.claim(t0)
	for i := range uint64(7200) {
		m.sample(t0+int64(i)*second, epoch, i+1, "d", Place{t0 + int64(i)*second, 1, i + 1}, float64(i))
	}
	m.gone = 3601
	for start, want := range map[int64]int64{t0: t0 + 3600*second, t0 + 3599*second: t0 + 3600*second, t0 + 3600*second: 0, t0 + 5000*second: 0} {
		got, page := all(t, reader(m), Query{Device: "d", Metric: "m", Start: start, End: t0 + 7200*second, Limit: 10_000})
		if page.RetainedFrom != want {
			t.Errorf("from %d s: retained from %d, want %d", (start-t0)/second, page.RetainedFrom, want)
		}
		if n := int(7200 - max(start-t0, 3600*second)/second); len(got) != n {
			t.Errorf("from %d s: %d points, want %d", (start-t0)/second, len(got), n)
		}
	}
}

// store is one that has the rows below a cursor, and some behind it.
type store struct {
	rows    map[Place]float64
	settled host.Cursor
	known   bool
	fails   error
}

func (s *store) Settled(context.Context, int32) (host.Cursor, bool, error) {
	return s.settled, s.known, nil
}
func (s *store) Visible(context.Context) error { return s.fails }

func (s *store) Points(_ context.Context, q Query) ([]Point, error) {
	w := world{truth: s.rows}
	q.Interval = 0
	return first(w.answer(&q), &q), nil
}

func (s *store) Buckets(_ context.Context, q Query) ([]Point, error) {
	w := world{truth: s.rows}
	return first(w.answer(&q), &q), nil
}

func first(points []Point, q *Query) []Point {
	points = slices.DeleteFunc(points, func(p Point) bool { return q.After != (Place{}) && p.Compare(q.After) <= 0 })
	return points[:min(len(points), q.Limit)]
}

// TestStoreIsCompleted: however far the store is, and whatever it has already of what comes behind its cursor,
// the answer is that of the log.
func TestStoreIsCompleted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := write(t)
		// The store has what counts below a cursor, and whole rows of some records behind it.
		s := &store{rows: map[Place]float64{}, known: true}
		cut := rapid.IntRange(0, len(w.records)).Draw(t, "cursor")
		ahead := rapid.IntRange(cut, len(w.records)).Draw(t, "ahead")
		var v host.Validator
		var dec codec.EventDecoder
		var ev codec.Event
		for i, r := range w.records[:ahead] {
			if i == cut {
				s.settled = v.Cursor
			}
			if v.Valid(r.Offset, &ev, dec.Decode(r.Value, &ev)) && string(r.Key) == "d" {
				for _, a := range ev.Effects.Applied {
					s.rows[Place{a.Time, a.Boot, a.Seq}] = a.Readings[0].Value
				}
			}
		}
		if cut == ahead {
			s.settled = v.Cursor
		}
		last := w.times[len(w.times)-1]
		q := Query{Device: "d", Metric: "m", Limit: rapid.IntRange(1, 20).Draw(t, "limit")}
		q.Start = rapid.SampledFrom([]int64{1, t0, (t0 + last) / 2}).Draw(t, "start")
		q.End = rapid.SampledFrom([]int64{q.Start + second, last + 1}).Draw(t, "end")
		q.Interval = rapid.SampledFrom([]int64{0, second, 7 * second, 3600 * second}).Draw(t, "interval")
		r := New(Config{Log: &w.memory, Store: s, Partition: func(string) int32 { return 0 }})
		got, page := all(t, r, q)
		if page.Source != FromStore {
			t.Fatalf("source %s", page.Source)
		}
		if diff := cmp.Diff(w.answer(&q), got, same); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// TestStoreAway: the log answers if it has everything; if not, nobody does.
func TestStoreAway(t *testing.T) {
	m := &memory{}
	epoch := m.claim(t0)
	for i := range uint64(3600) {
		m.sample(t0+int64(i)*second, epoch, i+1, "d", Place{t0 + int64(i)*second, 1, i + 1}, float64(i))
	}
	s := &store{known: true, fails: errors.New("connection refused"), settled: host.Cursor{Next: 3601, Epoch: epoch, N: 3600}}
	r := New(Config{Log: m, Store: s, Partition: func(string) int32 { return 0 }})
	q := Query{Device: "d", Metric: "m", Start: t0 + 3000*second, End: t0 + 4000*second, Limit: 1000}
	for _, known := range []bool{true, false} {
		s.known = known
		if got, page := all(t, r, q); len(got) != 600 || page.Source != FromLog {
			t.Errorf("known %t: %d points from %s", known, len(got), page.Source)
		}
	}
	m.gone = 3300
	page, err := r.History(t.Context(), q)
	if !errors.Is(err, ErrBehind) {
		t.Errorf("with half of it gone: %d points, %v", len(page.Points), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range readings {
		r.reading <- struct{}{}
	}
	if _, err := r.History(ctx, q); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestTooMuch: an answer needs bounded memory.
func TestTooMuch(t *testing.T) {
	q := &Query{Device: "d", Metric: "m", Start: 1, End: math.MaxInt64, Interval: math.MaxInt64 / 2, Limit: 1}
	c := newCollector(q)
	var err error
	ev := codec.Event{Effects: twin.Effects{Applied: []twin.AppliedSample{{Numbered: true, Readings: []twin.ScoredReading{{Name: "m"}}}}}}
	for i := int64(1); err == nil && i < 4*maxRows; i++ {
		ev.Effects.Applied[0].Time = i
		err = c.take(&ev)
	}
	if !errors.Is(err, ErrTooMuch) || len(c.rows) > 2*maxRows+1 {
		t.Errorf("%d rows, %v", len(c.rows), err)
	}
	samples := *q
	samples.Interval = 0
	c = newCollector(&samples)
	for i := int64(4 * maxRows); i > 0; i-- {
		ev.Effects.Applied[0].Time = i
		if err := c.take(&ev); err != nil {
			t.Fatal(err)
		}
	}
	page := c.page()
	if len(page.Points) != 1 || page.Points[0].Time != 1 || !page.More {
		t.Errorf("first page: %v", fmt.Sprint(page))
	}
}
