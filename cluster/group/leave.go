package group

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// leave gives the seat up, so that the others need not wait for the session to run out.
func (g *Group) leave(ctx context.Context, cl *kgo.Client) {
	s := g.current()
	g.sit(seat{})
	if s.member == "" {
		return
	}
	if err := g.askLeave(ctx, cl, s); err != nil {
		g.cfg.Logger.Warn("left the group without its knowledge, it learns when the session runs out", "group", g.cfg.Group, "error", err)
	}
}

// vacate gives up the seat of the earlier run, which cannot do so itself. A join that waits for that one
// goes on then. It is given up once the session must have run out anyway.
func (g *Group) vacate(ctx context.Context, cl *kgo.Client) {
	if g.cfg.Former == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	for ctx.Err() == nil {
		err := g.askLeave(ctx, cl, seat{member: g.cfg.Former})
		if err == nil || errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.GroupIDNotFound) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(firstRest):
		}
	}
}
