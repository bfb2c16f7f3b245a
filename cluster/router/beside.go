package router

import (
	"context"
	"time"
)

// Beside is time, and what runs beside the calls of a Router. A simulation has its own.
type Beside interface {
	Now() time.Time
	// Timer returns a timer that is stopped and calls fn, which does not wait.
	Timer(fn func()) Timer
	// Go calls fn, which may wait, and does not wait for it.
	Go(fn func())
	// Wait returns true when change is closed, false when limit has passed or ctx has ended.
	Wait(ctx context.Context, change <-chan struct{}, limit time.Duration) bool
}

// Timer is a time.Timer.
type Timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// goroutines is Beside as it is outside simulations.
type goroutines struct{}

// Now implements Beside.
func (goroutines) Now() time.Time { return time.Now() }

// Timer implements Beside.
func (goroutines) Timer(fn func()) Timer {
	t := time.AfterFunc(time.Hour, fn)
	t.Stop()
	return t
}

// Go implements Beside.
func (goroutines) Go(fn func()) { go fn() }

// Wait implements Beside.
func (goroutines) Wait(ctx context.Context, change <-chan struct{}, limit time.Duration) bool {
	expired := time.NewTimer(max(limit, 0))
	defer expired.Stop()
	select {
	case <-change:
		return true
	case <-expired.C:
	case <-ctx.Done():
	}
	return false
}

func (r *Router) now() time.Time { return r.cfg.Beside.Now() }
