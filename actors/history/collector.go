package history

import (
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/codec"
)

const (
	// compactEvery is how many rows are gathered before they are put in order the first time.
	compactEvery = 1 << 16
	// maxRows bounds the rows that one answer may need at a time (56 bytes each).
	maxRows = 1 << 20
)

// row is a sample of the metric asked for.
type row struct {
	Place
	value, z float64
}

// collector gathers the rows of an answer in the order of the log and keeps those of its first points.
type collector struct {
	q    *Query
	rows []row
	next int // compact when there are so many
}

func newCollector(q *Query) *collector {
	return &collector{q: q, next: compactEvery}
}

func (c *collector) reset() { c.rows = c.rows[:0] }

// take adds what a valid record of the device applied.
func (c *collector) take(ev *codec.Event) error {
	for i := range ev.Effects.Applied {
		a := &ev.Effects.Applied[i]
		at := Place{Time: a.Time, Boot: a.Boot, Seq: a.Seq}
		if !a.Numbered {
			at.Boot, at.Seq = 0, a.Count
		}
		if !c.q.wants(at) {
			continue
		}
		for j := range a.Readings {
			if r := &a.Readings[j]; r.Name == c.q.Metric {
				c.rows = append(c.rows, row{at, r.Value, r.Z})
				break
			}
		}
	}
	if len(c.rows) < c.next {
		return nil
	}
	c.compact()
	if len(c.rows) > maxRows {
		return ErrTooMuch
	}
	c.next = max(compactEvery, 2*len(c.rows))
	return nil
}

// compact puts the rows in order, the newest of each place, and drops those behind the first Limit+1 points.
func (c *collector) compact() {
	c.rows = inOrder(c.rows)
	if c.q.Interval == 0 {
		c.rows = c.rows[:min(len(c.rows), c.q.Limit+1)]
		return
	}
	buckets, last := 0, int64(-1)
	for i := range c.rows {
		if b := c.q.bucket(c.rows[i].Time); b != last {
			buckets, last = buckets+1, b
		}
		if buckets > c.q.Limit+1 {
			c.rows = c.rows[:i]
			return
		}
	}
}

// inOrder sorts rows that stand in the order of the log; of several of one place the last counts.
func inOrder(rows []row) []row {
	slices.SortStableFunc(rows, func(a, b row) int { return a.Compare(b.Place) })
	kept := rows[:0]
	for i := range rows {
		if i+1 < len(rows) && rows[i+1].Place == rows[i].Place {
			continue
		}
		kept = append(kept, rows[i])
	}
	return kept
}

// page is the answer of what was gathered.
func (c *collector) page() Page {
	c.compact()
	var points []Point
	if c.q.Interval == 0 {
		points = make([]Point, 0, len(c.rows))
		for _, r := range c.rows {
			points = append(points, r.point())
		}
	} else {
		points = fold(c.q, c.rows)
	}
	return cut(c.q, points, FromLog)
}

// cut makes a page of points, of which there may be one too many.
func cut(q *Query, points []Point, source string) Page {
	n := min(len(points), q.Limit)
	return Page{Points: points[:n:n], More: n < len(points), Source: source}
}

func (r *row) point() Point { return Point{Place: r.Place, Value: r.value, Z: r.z} }

// fold makes buckets of rows in order.
func fold(q *Query, rows []row) []Point {
	var points []Point
	var b bucket
	for i := range rows {
		at := q.Start + q.bucket(rows[i].Time)*q.Interval
		if b.count > 0 && at != b.at {
			points = append(points, b.point())
			b = bucket{}
		}
		b.at = at
		b.add(rows[i].value)
	}
	if b.count > 0 {
		points = append(points, b.point())
	}
	return points
}

// bucket sums up values.
type bucket struct {
	at       int64
	count    uint64
	sum      float64
	min, max float64
}

func (b *bucket) add(v float64) {
	if b.count == 0 {
		b.min, b.max = v, v
	}
	b.count++
	b.sum += v
	b.min, b.max = min(b.min, v), max(b.max, v)
}

func (b *bucket) point() Point {
	return Point{Place: Place{Time: b.at}, Z: math.NaN(), Count: b.count, Mean: b.sum / float64(b.count), Min: b.min, Max: b.max}
}
