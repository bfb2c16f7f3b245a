package router

import (
	"context"
	"errors"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// span is a partition's messages in a sorted batch.
type span struct {
	p          int32
	start, end int32
	local      bool
}

// spread hands a sorted batch over. What goes to other nodes leaves first, because that never waits;
// then what is this node's; at last what has to wait for a way to another node, so that one node that
// stands still holds nobody else up.
func (r *Router) spread(ctx context.Context, begin time.Time, s *sorter) error {
	start := int32(0)
	for p, end := range s.heads {
		if end > start {
			r.leave(ctx, begin, s, span{p: int32(p), start: start, end: end})
		}
		start = end
	}
	for _, local := range []bool{true, false} {
		for i, at := range s.later {
			if at.local != local {
				continue
			}
			if err := r.route(ctx, begin, at.p, s.out[at.start:at.end]); err != nil {
				s.giveBack(i, local)
				return err
			}
		}
	}
	return nil
}

// leave hands over what goes to another node, and puts off what cannot leave at once.
func (r *Router) leave(ctx context.Context, begin time.Time, s *sorter, at span) {
	to := r.owner(at.p)
	if at.local = to.Local; at.local {
		s.later = append(s.later, at)
		return
	}
	err := r.hop(begin, at.p, to.Address, s.out[at.start:at.end])
	if err == nil {
		return
	}
	if !errors.Is(err, errNoRoom) && !errors.Is(err, errBehind) && r.cfg.Ingest != nil && ctx.Err() == nil {
		n := r.slow(ctx, at.p, &r.detours[at.p], s.out[at.start:at.end], r.reason(at.p, err))
		at.start += int32(n)
	}
	if at.start < at.end {
		s.later = append(s.later, at)
	}
}

// giveBack answers what comes behind span i in the order of spread.
func (s *sorter) giveBack(i int, local bool) {
	for j, at := range s.later {
		if at.local == local && j > i || local && !at.local {
			busy(s.out[at.start:at.end])
		}
	}
}

// hop sends msgs to the node that serves p, if that needs no waiting.
func (r *Router) hop(begin time.Time, p int32, address string, msgs []host.Message) error {
	d := &r.detours[p]
	switch {
	case address == "":
		return errUnknownOwner
	case d.shuns(address, begin):
		return errMoving
	case d.behind():
		return errBehind
	}
	return r.peer(address).enter(begin, p, msgs)
}

// patientHop waits for what is in the way, but for all of a Deliver no longer than RoomWithin: the
// messages have to be safe before their successors' patience ends (rule P2).
func (r *Router) patientHop(ctx context.Context, begin time.Time, p int32, address string, msgs []host.Message) error {
	for {
		err := r.hop(begin, p, address, msgs)
		left := r.cfg.RoomWithin - r.now().Sub(begin)
		switch {
		case errors.Is(err, errBehind):
			if left <= 0 {
				return r.peer(address).enter(begin, p, msgs)
			}
			// Nobody waits for a way that is closed.
			if err := r.peer(address).open(); err != nil {
				return err
			}
			r.detours[p].letPass(ctx, r, left)
		case errors.Is(err, errNoRoom) && left > 0:
			r.peer(address).waitRoom(ctx, left)
		default:
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
