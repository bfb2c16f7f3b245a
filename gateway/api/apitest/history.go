package apitest

import (
	"context"
	"math"
	"time"

	"github.com/doppel-iot/doppel/actors/history"
)

// History implements api.History: each metric of a twin had a sample a second since Epoch, or the time that
// Remember was told, as many as the twin has versions, the value of the nth being n; those of every tenth second are missing.
func (f *Fleet) History(ctx context.Context, q history.Query) (history.Page, error) {
	t, err := f.Twin(ctx, q.Device)
	if err != nil {
		return history.Page{}, err
	}
	page := history.Page{Source: history.FromLog}
	if _, has := t.GetMetrics()[q.Metric]; !has {
		return page, nil
	}
	var points []history.Point
	for n := uint64(1); n <= t.GetVersion(); n++ {
		at := history.Place{Time: f.began().Add(time.Duration(n) * time.Second).UnixNano(), Boot: 2, Seq: n}
		if n%10 == 0 || at.Time < q.Start || at.Time >= q.End {
			continue
		}
		p := history.Point{Place: at, Value: float64(n), Z: math.NaN()}
		if n > 3 {
			p.Z = float64(n) / 2
		}
		points = sum(points, p, &q)
	}
	for _, p := range points {
		if q.After != (history.Place{}) && p.Compare(q.After) <= 0 {
			continue
		}
		if page.More = len(page.Points) == q.Limit; page.More {
			break
		}
		page.Points = append(page.Points, p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	page.RetainedFrom = f.retained
	return page, nil
}

// sum adds a sample to the points, or to the last bucket.
func sum(points []history.Point, p history.Point, q *history.Query) []history.Point {
	if q.Interval == 0 {
		return append(points, p)
	}
	at := q.Start + (p.Time-q.Start)/q.Interval*q.Interval
	if n := len(points); n > 0 && points[n-1].Time == at {
		b := &points[n-1]
		b.Mean = (b.Mean*float64(b.Count) + p.Value) / float64(b.Count+1)
		b.Count, b.Max = b.Count+1, p.Value
		return points
	}
	return append(points, history.Point{
		Place: history.Place{Time: at}, Z: math.NaN(), Count: 1, Mean: p.Value, Min: p.Value, Max: p.Value,
	})
}

// Remember makes History begin at a time.
func (f *Fleet) Remember(from time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = from
}

func (f *Fleet) began() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() {
		return Epoch()
	}
	return f.since
}

// Retain makes History say that what came before a time is gone.
func (f *Fleet) Retain(from time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retained = from.UnixNano()
}
