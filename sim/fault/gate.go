package fault

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// gate lets bytes pass, or makes them wait.
type gate struct {
	slow atomic.Pointer[disturbance] // nil: not slowed down

	mu   sync.Mutex
	wait chan struct{} // nil: open
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wait == nil {
		g.wait = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wait != nil {
		close(g.wait)
		g.wait = nil
	}
}

// pass waits until the gate is open; false: done came first.
func (g *gate) pass(done <-chan struct{}) bool {
	for {
		g.mu.Lock()
		wait := g.wait
		g.mu.Unlock()
		if wait == nil {
			select {
			case <-done:
				return false
			default:
				return true
			}
		}
		select {
		case <-wait:
		case <-done:
			return false
		}
	}
}

// resend is how long what was lost takes to come after all: TCP repeats it, and holds back what follows.
const resend = 200 * time.Millisecond

// disturb sets what happens to what passes; a loss of all of it shuts the gate.
func (g *gate) disturb(d disturbance) {
	if d.loss >= 1 {
		g.shut()
		return
	}
	g.slow.Store(&d)
	g.open()
}

// hold keeps a few bytes back for as long as the disturbance says; false: done came first.
func (g *gate) hold(done <-chan struct{}) bool {
	d := g.slow.Load()
	if d == nil {
		return true
	}
	wait := d.delay
	for rand.Float64() < d.loss {
		wait += resend
	}
	if wait == 0 {
		return true
	}
	select {
	case <-done:
		return false
	case <-time.After(wait):
		return true
	}
}
