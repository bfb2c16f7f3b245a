package questdb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/history"
)

// Reader asks QuestDB for the rows of one device's metric. Unlike a Writer it may be used from anywhere, and
// by nodes that write nothing.
type Reader struct {
	db *sqlClient

	mu      sync.Mutex
	columns *columns        // of metrics
	there   map[string]bool // columns that telemetry has, in lower case
}

// visibleWithin is how long QuestDB may take to show what it took.
const visibleWithin = 2 * time.Second

var (
	errNotVisible = errors.New("questdb does not show yet what it took")
	errNumber     = errors.New("questdb answer: not the numbers that were asked for")
)

// NewReader makes a Reader of the QuestDB at an URL, as in Config. It connects when it is asked.
func NewReader(rawURL string, secure func() *tls.Config) (*Reader, error) {
	cfg := Config{URL: rawURL}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("questdb: %w", err)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("questdb url: %w", err)
	}
	return &Reader{db: newSQLClient(u, newTransport(time.Minute, secure), time.Minute), columns: newColumns(math.MaxInt), there: map[string]bool{}}, nil
}

// Visible implements history.Store: QuestDB says that it has rows when they are in its log, and applies that
// a moment later.
func (r *Reader) Visible(ctx context.Context) error {
	const tables = " FROM wal_tables() WHERE name IN ('telemetry', 'telemetry_long')"
	taken, err := r.db.exact(ctx, "SELECT name, sequencerTxn"+tables)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, visibleWithin, errNotVisible)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		shown, err := r.db.exact(ctx, "SELECT name, writerTxn"+tables)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if reached(shown, taken) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// reached compares transactions by table.
func reached(shown, taken [][]any) bool {
	at := map[any]int64{}
	for _, row := range shown {
		n, _ := integer(row[1])
		at[row[0]] = n
	}
	return !slices.ContainsFunc(taken, func(row []any) bool {
		n, err := integer(row[1])
		return err != nil || at[row[0]] < n
	})
}

// Points implements history.Store.
func (r *Reader) Points(ctx context.Context, q history.Query) ([]history.Point, error) {
	return both(ctx, r, &q, r.points)
}

// Buckets implements history.Store.
func (r *Reader) Buckets(ctx context.Context, q history.Query) ([]history.Point, error) {
	return both(ctx, r, &q, r.buckets)
}

// both asks for what stands in a column and for what stands in telemetry_long: a metric may have been there
// before the number of columns was raised.
func both(ctx context.Context, r *Reader, q *history.Query, ask func(context.Context, *history.Query, source) ([]history.Point, error)) ([]history.Point, error) {
	points, err := ask(ctx, q, source{from: "telemetry_long", value: "value", z: "z", where: " AND metric = " + quote(q.Metric)})
	if err != nil && !errors.Is(err, errNoTable) {
		return nil, err
	}
	src, ok, err := r.source(ctx, q.Metric)
	if err != nil || !ok {
		return points, err
	}
	more, err := ask(ctx, q, src)
	if err != nil {
		r.forget()
		return nil, err
	}
	points = merge(append(points, more...))
	return points[:min(len(points), q.Limit)], nil
}

// merge puts points in order; buckets of both tables become one.
func merge(points []history.Point) []history.Point {
	slices.SortStableFunc(points, func(a, b history.Point) int { return a.Compare(b.Place) })
	out := points[:0]
	for _, p := range points {
		if len(out) == 0 || out[len(out)-1].Place != p.Place {
			out = append(out, p)
			continue
		}
		last := &out[len(out)-1]
		if last.Count == 0 { // samples: the column's is the newer one
			*last = p
			continue
		}
		n := float64(last.Count + p.Count)
		last.Mean = last.Mean*(float64(last.Count)/n) + p.Mean*(float64(p.Count)/n)
		last.Count += p.Count
		last.Min, last.Max = min(last.Min, p.Min), max(last.Max, p.Max)
	}
	return out
}

// source is where the readings of a metric stand.
type source struct{ from, value, z, where string }

// condition is that of all rows of q in a source.
func (s source) condition(q *history.Query, from int64) string {
	return fmt.Sprintf("device = %s%s AND ts >= %s AND ts < %s AND %s IS NOT NULL", quote(q.Device), s.where, instant(from), instant(q.End), s.value)
}

// points asks for samples. QuestDB reads them in the order of time until there are enough; those of one
// time are put in order here, which needs all of them.
func (r *Reader) points(ctx context.Context, q *history.Query, s source) ([]history.Point, error) {
	from := max(q.Start, q.After.Time)
	where := s.condition(q, from)
	if a := q.After; a != (history.Place{}) {
		where += fmt.Sprintf(" AND (ts > %s OR boot > %d OR (boot = %d AND seq > %d))", instant(a.Time), a.Boot, a.Boot, a.Seq)
	}
	const of = "SELECT ts::long, boot, seq, %s, %s FROM %s WHERE "
	stmt := fmt.Sprintf(of, s.value, s.z, s.from)
	points, err := r.samples(ctx, stmt+where+" ORDER BY ts LIMIT "+strconv.Itoa(q.Limit))
	if err != nil || len(points) < q.Limit {
		return points, err
	}
	last := points[len(points)-1].Time
	of1, err := r.samples(ctx, stmt+where+" AND ts = "+instant(last))
	if err != nil {
		return nil, err
	}
	points = slices.DeleteFunc(points, func(p history.Point) bool { return p.Time == last })
	points = append(points, of1...)
	return points[:min(len(points), q.Limit)], nil
}

func (r *Reader) samples(ctx context.Context, stmt string) ([]history.Point, error) {
	rows, err := r.db.exact(ctx, stmt)
	if err != nil {
		return nil, err
	}
	points := make([]history.Point, 0, len(rows))
	for _, row := range rows {
		var p history.Point
		var errs [5]error
		var boot, seq int64
		p.Time, errs[0] = integer(row[0])
		boot, errs[1] = integer(row[1])
		seq, errs[2] = integer(row[2])
		p.Value, errs[3] = float(row[3])
		p.Boot, p.Seq, p.Z = uint64(boot), uint64(seq), math.NaN()
		if row[4] != nil {
			p.Z, errs[4] = float(row[4])
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	slices.SortFunc(points, func(a, b history.Point) int { return a.Compare(b.Place) })
	return points, nil
}

// buckets asks for sums.
func (r *Reader) buckets(ctx context.Context, q *history.Query, s source) ([]history.Point, error) {
	first := int64(0)
	if q.After.Time != 0 {
		first = (q.After.Time-q.Start)/q.Interval + 1
	}
	from := q.Start + first*q.Interval
	if from >= q.End {
		return nil, nil
	}
	rows, err := r.db.exact(ctx, fmt.Sprintf(`SELECT bucket, count(), avg(v), min(v), max(v) FROM
		(SELECT (ts::long - %d) / %d AS bucket, %s AS v FROM %s WHERE %s) GROUP BY bucket ORDER BY bucket LIMIT %d`,
		q.Start, q.Interval, s.value, s.from, s.condition(q, from), q.Limit))
	if err != nil {
		return nil, err
	}
	points := make([]history.Point, 0, len(rows))
	for _, row := range rows {
		p := history.Point{Z: math.NaN()}
		var errs [5]error
		var bucket, count int64
		bucket, errs[0] = integer(row[0])
		count, errs[1] = integer(row[1])
		p.Mean, errs[2] = float(row[2])
		p.Min, errs[3] = float(row[3])
		p.Max, errs[4] = float(row[4])
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		p.Time, p.Count = q.Start+bucket*q.Interval, uint64(count)
		points = append(points, p)
	}
	return points, nil
}

// source finds the column of a metric; false: it has none, or no row in it yet.
func (r *Reader) source(ctx context.Context, metric string) (s source, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok = r.known(metric); ok && s.z != "null" {
		return s, true, nil
	}
	cols, there := newColumns(math.MaxInt), map[string]bool{}
	rows, err := r.db.query(ctx, `SELECT metric, "column" FROM metric_columns`)
	if err != nil {
		return s, false, noTable(err)
	}
	for _, row := range rows {
		metric, ok1 := row[0].(string)
		name, ok2 := row[1].(string)
		if ok1 && ok2 {
			cols.add(metric, name)
		}
	}
	if rows, err = r.db.query(ctx, `SELECT "column" FROM (SHOW COLUMNS FROM telemetry)`); err != nil {
		return s, false, noTable(err)
	}
	for _, row := range rows {
		if name, ok := row[0].(string); ok {
			there[strings.ToLower(name)] = true
		}
	}
	r.columns, r.there = cols, there
	s, ok = r.known(metric)
	return s, ok, nil
}

// known is the source of a metric as far as it is known. Under mu.
func (r *Reader) known(metric string) (s source, ok bool) {
	col, ok := r.columns.byMetric[metric]
	if !ok || !r.there[strings.ToLower(col.value)] {
		return source{}, false
	}
	s = source{from: "telemetry", value: `"` + col.value + `"`, z: "null"}
	if r.there[strings.ToLower(col.z)] {
		s.z = `"` + col.z + `"`
	}
	return s, true
}

// forget has the columns asked for again: somebody may have dropped the tables.
func (r *Reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.columns, r.there = newColumns(math.MaxInt), map[string]bool{}
}

// noTable is err, but for tables that nobody has made yet.
func noTable(err error) error {
	if errors.Is(err, errNoTable) {
		return nil
	}
	return err
}

// instant is a time as QuestDB reads it, with all its digits.
func instant(t int64) string {
	return "'" + time.Unix(0, t).UTC().Format("2006-01-02T15:04:05.000000000Z") + "'"
}

func integer(v any) (int64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, errNumber
	}
	return n.Int64()
}

func float(v any) (float64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, errNumber
	}
	return n.Float64()
}
