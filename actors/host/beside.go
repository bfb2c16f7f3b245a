package host

import "time"

// Beside runs what a partition cannot do in its turns: questions to the log, and what is tried again after a
// while. A simulation gives it a virtual clock and an order; nothing in a message's way goes through it.
type Beside interface {
	// Go calls fn, which may wait, and does not wait for it.
	Go(fn func())
	// After calls fn, which does not wait, when d has passed.
	After(d time.Duration, fn func())
}

// goroutines is Beside as it is outside simulations.
type goroutines struct{}

// Go implements Beside.
func (goroutines) Go(fn func()) { go fn() }

// After implements Beside.
func (goroutines) After(d time.Duration, fn func()) { time.AfterFunc(d, fn) }

func (h *Host) after(d time.Duration, fn func()) { h.cfg.Beside.After(d, fn) }
