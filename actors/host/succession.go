package host

import (
	"context"
	"errors"
	"time"
)

// The pause before a partition is claimed again.
const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// succession is what serves a partition in a tenure: one owner after another (O5). An owner that lost its
// epoch is thrown away whole and the next one starts from the log.
//
// It has no goroutine. step does what can be done and returns; it is to be called again when the mailbox
// wakes, once a tick, and when one of its contexts ends. Not for concurrent use.
type succession struct {
	p       *partition
	o       *owner             // nil: between two of them
	drop    context.CancelFunc // ends what o has begun
	epoch   context.Context    //nolint:containedctx // as long as o: a child of step's, made when o begins
	began   int64              // when o did
	claimed bool               // o has its epoch
	ready   bool               // the pause before the next owner is over
	backoff time.Duration
	err     error // why it ended by itself
}

func newSuccession(p *partition) *succession {
	p.box.open()
	return &succession{p: p, ready: true, backoff: firstBackoff}
}

// step goes on as far as possible without waiting and says whether the partition is let go of. It is to be left
// when ctx ends, and at once when work does.
func (s *succession) step(ctx, work context.Context) (over bool) {
	s.p.turn.Lock()
	defer s.p.turn.Unlock()
	defer s.expose()
	if s.o == nil {
		for _, call := range s.p.box.takeCalls() {
			call(nil)
		}
		switch {
		case ctx.Err() != nil:
			return true
		case !s.ready, !s.p.host.cfg.Assigned(s.p.id): // asked again at the next tick
			return false
		}
		s.begin(ctx)
	}
	if err := s.advance(work); err != nil {
		return s.close(ctx, err)
	}
	return false
}

// expose lets reads see the owner that serves, if there is one.
func (s *succession) expose() {
	if s.p.serving = s.o; s.o != nil && !s.o.served {
		s.p.serving = nil
	}
}

func (s *succession) begin(ctx context.Context) {
	s.o, s.claimed, s.ready, s.began = newOwner(s.p), false, false, s.p.host.cfg.Clock()
	s.epoch, s.drop = context.WithCancel(ctx)
	s.o.claim(s.epoch) //nolint:contextcheck // it is ctx with an end of its own
}

// advance returns why the epoch ends; nil: it does not.
func (s *succession) advance(work context.Context) error {
	if !s.claimed {
		var err error
		if s.claimed, err = s.o.claimed(); err != nil {
			return err
		}
		if !s.claimed {
			return s.epoch.Err()
		}
		if err := s.o.open(s.epoch, work); err != nil {
			return err
		}
	}
	return s.o.serve(s.epoch, work)
}

// close ends the epoch and decides what follows.
func (s *succession) close(ctx context.Context, err error) (over bool) {
	p, o := s.p, s.o
	log := p.host.log.With("partition", p.id)
	s.drop()
	o.discard()
	s.o, s.epoch = nil, nil
	p.show(&View{ID: p.id, State: Idle})
	p.giveBack(p.box.takeMessages(nil)) // another way may be open now
	switch {
	case ctx.Err() != nil:
		if !errors.Is(err, ctx.Err()) {
			log.WarnContext(ctx, "partition left before everything was acknowledged", "epoch", o.epoch, "err", err)
		}
		return true
	case errors.Is(err, errRefuseToServe):
		s.err = err
		return true
	case errors.Is(err, errRestart):
		log.InfoContext(ctx, "partition restores itself", "epoch", o.epoch)
		s.ready = true
		p.box.signal()
		return false
	}
	if o.served && p.host.cfg.Clock()-s.began > int64(2*maxBackoff) { // not one that fails at the same record again
		s.backoff = firstBackoff
	}
	p.host.stats.Fenced.Add(1)
	log.WarnContext(ctx, "epoch ended, claiming again", "epoch", o.epoch, "err", err, "backoff", s.backoff)
	jitter := time.Duration(p.host.cfg.Nonce() % uint64(s.backoff))
	p.host.after(s.backoff+jitter, func() { p.box.call(func(*owner) { s.ready = true }) })
	s.backoff = min(2*s.backoff, maxBackoff)
	return false
}

// end lets the partition go, whatever the state it is in.
func (s *succession) end() {
	s.p.turn.Lock()
	defer s.p.turn.Unlock()
	if s.o != nil { // not reached by step: the process is about to end, or the node is a simulated one
		s.drop()
		s.o.discard()
		s.o, s.p.serving = nil, nil
		s.p.show(&View{ID: s.p.id, State: Idle})
	}
	s.p.turnAway()
}
