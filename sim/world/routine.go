package world

import "iter"

// routine is something of a process that waits: a coroutine, which goes on only when the world says so.
type routine struct {
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	ready  func() bool // what it waits for; nil: nothing
	ended  bool
}

// spawn makes fn a routine of p.
func (p *process) spawn(fn func()) {
	r := &routine{}
	r.resume, r.stop = iter.Pull(func(yield func(struct{}) bool) {
		r.yield = yield
		fn()
		r.ended = true
	})
	p.routines = append(p.routines, r)
}

// park has the routine that calls it wait; false: its process is dead.
func (p *process) park(ready func() bool) bool {
	r := p.w.inside
	if r == nil || p.dead {
		return false
	}
	r.ready = ready
	return r.yield(struct{}{})
}

// goOn runs one of the routines of p that may go on; false: none may.
func (p *process) goOn(from int) bool {
	for i := range p.routines {
		k := (from + i) % len(p.routines)
		r := p.routines[k]
		if r.ready != nil && !r.ready() {
			continue
		}
		p.w.inside = r
		r.resume()
		p.w.inside = nil
		if r.ended {
			p.routines = append(p.routines[:k:k], p.routines[k+1:]...)
		}
		return true
	}
	return false
}

// stopAll ends the routines of a dead process.
func (p *process) stopAll() {
	all := p.routines
	p.routines = nil
	for _, r := range all {
		r.stop()
	}
}
