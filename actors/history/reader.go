package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/doppel-iot/doppel/actors/host"
)

// Store is a time series store.
type Store interface {
	// Settled is the place in partition p's log below which the store was given all rows. false: not known.
	Settled(ctx context.Context, p int32) (host.Cursor, bool, error)
	// Visible returns when the store shows what it was given before.
	Visible(ctx context.Context) error
	// Points gives the first samples behind After, at most Limit.
	Points(ctx context.Context, q Query) ([]Point, error)
	// Buckets gives the first buckets behind After that have samples, at most Limit.
	Buckets(ctx context.Context, q Query) ([]Point, error)
}

// Config of a Reader.
type Config struct {
	Log       Log
	Store     Store                     // nil: the log answers
	Partition func(device string) int32 // of a device
	Logger    *slog.Logger              // default: none
}

// Reader answers questions about the past of metrics.
type Reader struct {
	cfg     Config
	reading chan struct{} // holds one for each reading of the log
}

// readings is how many long readings of the log may run at a time.
const readings = 4

// New returns a Reader. It starts nothing.
func New(cfg Config) *Reader {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reader{cfg: cfg, reading: make(chan struct{}, readings)}
}

// History answers q from the store and, for what it does not have yet, from the end of the log. While the
// store does not answer the log does, if it has all of what is asked for.
func (r *Reader) History(ctx context.Context, q Query) (Page, error) {
	p := r.cfg.Partition(q.Device)
	if r.cfg.Store == nil {
		return r.fromLog(ctx, p, &q)
	}
	page, err := r.fromStore(ctx, p, &q)
	switch {
	case err == nil:
		return page, nil
	case ctx.Err() != nil:
		return Page{}, ctx.Err()
	}
	r.cfg.Logger.DebugContext(ctx, "history is read from the log, the store does not have it", "err", err)
	page, logErr := r.fromLog(ctx, p, &q)
	switch {
	case logErr == nil && page.RetainedFrom == 0, ctx.Err() != nil:
		return page, logErr
	case errors.Is(logErr, ErrTooMuch) || logErr == nil:
		return Page{}, fmt.Errorf("%w: %w", ErrBehind, err)
	default:
		return Page{}, logErr
	}
}

var errUnsettled = errors.New("it is not known yet which rows it has")

// fromStore answers from the store and the log behind its cursor. A row may be in both: that of the log
// counts, and is the same.
func (r *Reader) fromStore(ctx context.Context, p int32, q *Query) (Page, error) {
	cursor, ok, err := r.cfg.Store.Settled(ctx, p)
	if err != nil {
		return Page{}, err
	}
	if !ok {
		return Page{}, errUnsettled
	}
	_, end, err := r.cfg.Log.Bounds(ctx, p)
	if err != nil {
		return Page{}, fmt.Errorf("history of p%d: %w", p, err)
	}
	tail := newCollector(q)
	if _, err := r.scan(ctx, p, start{Cursor: cursor}, end, maxTail, q, tail); err != nil {
		return Page{}, err
	}
	tail.compact()
	if err := r.cfg.Store.Visible(ctx); err != nil {
		return Page{}, err
	}
	one := *q
	one.Limit++ // to see whether there is more
	if q.Interval > 0 {
		points, err := r.cfg.Store.Buckets(ctx, one)
		if err == nil {
			points, err = r.completeBuckets(ctx, q, points, tail.rows)
		}
		return cut(q, points, FromStore), err
	}
	points, err := r.cfg.Store.Points(ctx, one)
	return cut(q, complete(points, tail.rows), FromStore), err
}

// complete puts rows among points.
func complete(points []Point, rows []row) []Point {
	if len(rows) == 0 {
		return points
	}
	all := make([]row, 0, len(points)+len(rows))
	for _, p := range points {
		all = append(all, row{p.Place, p.Value, p.Z})
	}
	all = inOrder(append(all, rows...))
	points = make([]Point, 0, len(all))
	for i := range all {
		points = append(points, all[i].point())
	}
	return points
}

// completeBuckets makes the buckets anew that rows belong to.
func (r *Reader) completeBuckets(ctx context.Context, q *Query, points []Point, rows []row) ([]Point, error) {
	for len(rows) > 0 {
		n := 1
		k := q.bucket(rows[0].Time)
		for n < len(rows) && q.bucket(rows[n].Time) == k {
			n++
		}
		at := q.Start + k*q.Interval
		if len(points) > q.Limit && at > points[len(points)-1].Time {
			break // of another page
		}
		b, err := r.bucket(ctx, q, at, rows[:n])
		if err != nil {
			return nil, err
		}
		i, found := slices.BinarySearchFunc(points, at, func(p Point, at int64) int { return p.Compare(Place{Time: at}) })
		if found {
			points[i] = b
		} else {
			points = slices.Insert(points, i, b)
		}
		rows = rows[n:]
	}
	return points, nil
}

// storePage is how many samples are asked of the store at a time.
const storePage = 10_000

// bucket sums up the samples of the store and rows, which are in order.
func (r *Reader) bucket(ctx context.Context, q *Query, at int64, rows []row) (Point, error) {
	ask := Query{Device: q.Device, Metric: q.Metric, Start: at, End: min(at+q.Interval, q.End), Limit: storePage}
	b := bucket{at: at}
	for {
		points, err := r.cfg.Store.Points(ctx, ask)
		if err != nil {
			return Point{}, err
		}
		for _, p := range points {
			for len(rows) > 0 && rows[0].Compare(p.Place) < 0 {
				b.add(rows[0].value)
				rows = rows[1:]
			}
			if len(rows) > 0 && rows[0].Place == p.Place {
				continue // it follows
			}
			b.add(p.Value)
		}
		if len(points) < ask.Limit {
			break
		}
		ask.After = points[len(points)-1].Place
	}
	for _, l := range rows {
		b.add(l.value)
	}
	return b.point(), nil
}
