package group

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// beat keeps the session alive, also while a join waits for other members.
func (g *Group) beat(ctx context.Context, cl *kgo.Client) {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	trouble := trouble{log: g.cfg.Logger}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := g.current()
		if s.generation == 0 {
			continue
		}
		sent := time.Now()
		err := g.askHeartbeat(ctx, cl, s)
		if ctx.Err() != nil {
			return
		}
		g.answered(s, sent, err)
		if err == nil || another(err) {
			trouble.over()
		} else {
			trouble.report(err)
		}
		if another(err) {
			g.rejoinFrom(s)
		}
	}
}

// rejoinFrom joins again, unless that is under way or s is a thing of the past.
func (g *Group) rejoinFrom(s seat) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.joining && (g.seat == s || g.seat == seat{}) {
		g.rejoin()
	}
}

// answered takes note of the answer to a request of s.
func (g *Group) answered(s seat, sent time.Time, err error) {
	switch {
	case err == nil, errors.Is(err, kerr.RebalanceInProgress):
		for {
			was := g.heard.Load()
			if was != nil && !sent.After(*was) {
				return
			}
			if g.heard.CompareAndSwap(was, &sent) {
				return
			}
		}
	case errors.Is(err, kerr.UnknownMemberID):
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.seat.member != s.member || s.member == "" {
			return
		}
		if s.generation != 0 {
			g.cfg.Logger.Warn("the group has gone on without this node, which joins anew", "group", g.cfg.Group, "generation", s.generation)
		}
		g.seat = seat{}
	}
}

// trouble logs what lasts: when it begins, every now and then, and when it is over.
type trouble struct {
	log    *slog.Logger
	since  time.Time // zero: none
	logged time.Time
}

const repeatTrouble = 30 * time.Second

func (t *trouble) report(err error) {
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	if t.logged.IsZero() || now.Sub(t.logged) >= repeatTrouble {
		t.logged = now
		t.log.Warn("no membership of the group, assignments stay as they are", "since", t.since, "error", err)
	}
}

func (t *trouble) over() {
	if !t.since.IsZero() {
		t.log.Info("the group answers again", "after", time.Since(t.since))
	}
	t.since, t.logged = time.Time{}, time.Time{}
}
