package apitest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
)

// Partitions of an AlertLog.
const Partitions = 16

// AlertLog is doppel.alerts in memory; it implements api.AlertLog. Several hubs may share one, as
// nodes do. Safe for concurrent use.
type AlertLog struct {
	mu    sync.Mutex
	parts [Partitions][]host.Published
	start [Partitions]int64
	news  chan struct{} // closed at the next record
	reads int
	made  int // times that the topic was made anew
}

// Put appends a transition; its At is given to it.
func (l *AlertLog) Put(t host.Published) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.At = l.end(t.Partition)
	l.parts[t.Partition] = append(l.parts[t.Partition], t)
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
}

func (l *AlertLog) end(p int32) int64 { return l.start[p] + int64(len(l.parts[p])) }

// Trim removes all but the newest keep records of each partition, as retention does.
func (l *AlertLog) Trim(keep int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.parts {
		if n := len(l.parts[p]) - keep; n > 0 {
			l.start[p] += int64(n)
			l.parts[p] = slices.Clone(l.parts[p][n:])
		}
	}
}

// Reads is how often the log was read from the middle.
func (l *AlertLog) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// Identity implements api.AlertLog.
func (l *AlertLog) Identity(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("log %d", l.made), nil
}

// Bounds implements api.AlertLog.
func (l *AlertLog) Bounds(context.Context) (start, end []int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range int32(Partitions) {
		start, end = append(start, l.start[p]), append(end, l.end(p))
	}
	return start, end, nil
}

// Read implements api.AlertLog.
func (l *AlertLog) Read(_ context.Context, from, to []int64, fn func(host.Published) error) error {
	l.mu.Lock()
	l.reads++
	l.mu.Unlock()
	return l.each(from, to, fn)
}

func (l *AlertLog) each(from, to []int64, fn func(host.Published) error) error {
	for p := range int32(Partitions) {
		for at := from[p]; at < to[p]; at++ {
			l.mu.Lock()
			i := at - l.start[p]
			if i < 0 {
				l.mu.Unlock()
				return fmt.Errorf("p%d at %d: %w", p, at, host.ErrNotRetained)
			}
			t := l.parts[p][i]
			l.mu.Unlock()
			if err := fn(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// Follow implements api.AlertLog.
func (l *AlertLog) Follow(ctx context.Context, from []int64, fn func(host.Published) error) error {
	for at := slices.Clone(from); ; {
		l.mu.Lock()
		if l.news == nil {
			l.news = make(chan struct{})
		}
		news := l.news
		end := make([]int64, Partitions)
		for p := range int32(Partitions) {
			end[p] = l.end(p)
		}
		l.mu.Unlock()
		if err := l.each(at, end, fn); err != nil {
			return err
		}
		at = end
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
