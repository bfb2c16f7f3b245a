package host

import (
	"context"
)

// Stepper takes the steps of a Host's partitions in place of their goroutines, so that a simulation with
// many hosts in one goroutine decides what happens next. Own, Drop and Offer are as ever (Offer must find
// room); Serve, Release and queries would wait for ever: Leave and Look stand for them. Config.Beside must
// be the simulation's. Not for concurrent use.
type Stepper struct {
	h    *Host
	runs []*stepped // by partition; nil: not owned
}

// stepped is a tenure without a goroutine.
type stepped struct {
	s         *succession
	ctx, work context.Context //nolint:containedctx // of the tenure, which has no call to be given it by
	abandon   context.CancelFunc
	over      func(error)
	leaving   bool
}

// NewStepper takes over the partitions of h, which must not own any yet.
func NewStepper(h *Host) *Stepper {
	s := &Stepper{h: h, runs: make([]*stepped, len(h.parts))}
	h.launch = func(ctx, patience context.Context, p *partition, over func(error)) {
		work, abandon := context.WithCancel(patience)
		s.runs[p.id] = &stepped{s: newSuccession(p), ctx: ctx, work: work, abandon: abandon, over: over}
	}
	return s
}

// Owned says whether partition p is served, or about to be, or not let go of yet.
func (s *Stepper) Owned(p int32) bool { return s.runs[p] != nil }

// Woken says whether something came for partition p since it was asked last.
func (s *Stepper) Woken(p int32) bool {
	select {
	case <-s.h.parts[p].box.wake:
		return true
	default:
		return false
	}
}

// Step lets partition p go on as far as it can. It is due when the partition is woken, when it is to be
// left or dropped, and otherwise every 50 ms by the host's clock.
func (s *Stepper) Step(p int32) {
	r := s.runs[p]
	if r == nil {
		return
	}
	if r.ctx.Err() != nil && !r.leaving {
		r.leaving = true
		s.h.after(leaveWithin, r.abandon)
	}
	if r.s.step(r.ctx, r.work) {
		s.finish(p, r.s.err)
	}
}

func (s *Stepper) finish(p int32, err error) {
	r := s.runs[p]
	r.s.end()
	r.abandon()
	s.runs[p] = nil
	r.over(err)
}

// Leave begins to let go of partition p in order; see Host.Release.
func (s *Stepper) Leave(p int32) { s.h.parts[p].leave() }

// Hungry says whether partition p has taken what Ingest.Follow gave it, which would wait otherwise.
func (s *Stepper) Hungry(p int32) bool {
	r := s.runs[p]
	return r != nil && r.s.o != nil && r.s.o.feed.in != nil && len(r.s.o.feed.in) == 0
}

// Kill ends the host as the death of its process would, but for the memory: doors that wait are told that
// there is no owner, and nothing of that may be believed.
func (s *Stepper) Kill() {
	for p, r := range s.runs {
		if r != nil {
			s.h.parts[p].again = false
			s.finish(int32(p), nil)
		}
	}
}

// Look calls fn with the state hash of partition p and the offset below which it is the fold of the log, when
// that is released; with ok false if it cannot be told.
func (s *Stepper) Look(p int32, fn func(next int64, hash uint64, ok bool)) {
	s.h.parts[p].box.call(func(o *owner) {
		if o == nil || !o.served || o.restart {
			fn(0, 0, false)
			return
		}
		var hash uint64
		for _, c := range o.twins {
			hash += c.twin.Hash()
		}
		for id, p := range o.idle.passive {
			o.decode(&o.idle.read, id, p)
			hash += o.idle.read.Hash()
		}
		if o.n <= o.released {
			fn(o.prev+1, hash, true)
			return
		}
		n := o.n
		*o.pend.push() = pending{n: n, fn: func() { fn(o.prev+1, hash, o.released >= n) }}
	})
}

// Update is Host.Update: fn is called when the change is durable, or with why it is not.
func (s *Stepper) Update(p int32, u Update, fn func(error)) {
	s.write(p, func(o *owner) (n uint64, err error) { _, n, err = o.update(&u); return n, err }, fn)
}

// Delete is Host.Delete in the same way.
func (s *Stepper) Delete(p int32, device string, fn func(error)) {
	s.write(p, func(o *owner) (uint64, error) { return o.delete(device, "") }, fn)
}

func (s *Stepper) write(p int32, do func(*owner) (uint64, error), fn func(error)) {
	s.h.parts[p].box.call(func(o *owner) {
		if o == nil || !o.served {
			fn(ErrUnavailable)
			return
		}
		n, err := do(o)
		if err != nil || n <= o.released {
			fn(err)
			return
		}
		*o.pend.push() = pending{n: o.n, fn: func() {
			if o.released < n {
				fn(ErrUnavailable)
				return
			}
			fn(nil)
		}}
	})
}

// Ingested is the offset of doppel.ingest below which partition p has handled everything; 0: it serves nothing.
func (s *Stepper) Ingested(p int32) int64 {
	if r := s.runs[p]; r != nil && r.s.o != nil {
		return int64(r.s.o.src.Offset)
	}
	return 0
}

// Next is the offset below which the owner of partition p knows all of the log, released or void; 0: none serves.
func (s *Stepper) Next(p int32) int64 {
	if r := s.runs[p]; r != nil && r.s.o != nil {
		return r.s.o.prev + 1
	}
	return 0
}
