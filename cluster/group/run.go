package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// firstRest and longestRest bound the pause before joining is tried again.
	firstRest   = 200 * time.Millisecond
	longestRest = 2 * time.Second
	// steps is how often joining goes on at once when the coordinator asks for another step of it.
	steps = 8
)

// Run is the membership: it joins, keeps the session, takes part in every rebalance, and leaves when ctx
// ends. Whatever goes wrong meanwhile is tried again, for as long as it takes.
func (g *Group) Run(ctx context.Context) error {
	cl, err := kgo.NewClient(g.opts...)
	if err != nil {
		return fmt.Errorf("group %s: %w", g.cfg.Group, err)
	}
	defer cl.Close()
	g.client.Store(cl)
	defer g.client.Store(nil)

	var beside sync.WaitGroup
	beside.Go(func() { g.beat(ctx, cl) })
	beside.Go(func() { g.vacate(ctx, cl) })
	g.attend(ctx, cl)
	g.leave(context.WithoutCancel(ctx), cl)
	beside.Wait()
	return nil
}

// attend joins, again and again.
func (g *Group) attend(ctx context.Context, cl *kgo.Client) {
	trouble := trouble{log: g.cfg.Logger}
	for rest, step := firstRest, 0; ctx.Err() == nil; {
		err := g.join(ctx, cl)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			trouble.over()
			rest, step = firstRest, 0
			select {
			case <-ctx.Done():
			case <-g.kick:
			}
			continue
		case another(err) && step < steps:
			step++
			continue
		}
		trouble.report(err)
		step = 0
		select {
		case <-ctx.Done():
		case <-time.After(rest/2 + rand.N(rest)):
		}
		rest = min(2*rest, longestRest)
	}
}

// another reports whether err is the coordinator's way to ask for the next step.
func another(err error) bool {
	for _, e := range []error{kerr.MemberIDRequired, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// join takes part in one generation, and publishes its table.
func (g *Group) join(ctx context.Context, cl *kgo.Client) error {
	s, me := g.enter()
	defer g.entered()

	sent := time.Now()
	resp, err := g.askJoin(ctx, cl, s, me)
	if errors.Is(err, kerr.MemberIDRequired) {
		g.sit(seat{member: resp.MemberID})
		return err
	}
	if g.answered(s, sent, err); err != nil {
		return err
	}
	s = seat{member: resp.MemberID, generation: resp.Generation}
	g.sit(s)

	var as []kmsg.SyncGroupRequestGroupAssignment
	if resp.LeaderID == resp.MemberID {
		pl := plan{topic: g.cfg.Topic, partitions: g.cfg.Partitions, log: g.cfg.Logger}
		if as, err = pl.assignments(resp.Generation, resp.Members); err != nil {
			return err
		}
	}
	sent = time.Now()
	got, err := g.askSync(ctx, cl, s, as)
	if g.answered(s, sent, err); err != nil {
		return err
	}
	return g.publish(got)
}

// enter is the seat to join with, and what to say.
func (g *Group) enter() (seat, *doppelv1.GroupMember) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joining = true
	select {
	case <-g.kick:
	default:
	}
	m := &doppelv1.GroupMember{Node: g.cfg.Node, Incarnation: g.cfg.Incarnation, Capacity: uint32(g.capacity)}
	if t := g.table.Load(); t != nil {
		m.Generation = t.Generation
	}
	m.Owned = slices.SortedFunc(maps.Keys(g.since), func(p, q int32) int {
		return cmp.Or(cmp.Compare(g.since[p], g.since[q]), cmp.Compare(p, q))
	})
	return g.seat, m
}

func (g *Group) entered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joining = false
}

func (g *Group) sit(s seat) {
	g.mu.Lock()
	was := g.seat.member
	g.seat = s
	g.mu.Unlock()
	if s.member != was && s.member != "" {
		g.cfg.Seated(s.member)
	}
}

// publish makes the table of an assignment the newest.
func (g *Group) publish(assignment []byte) error {
	t, doubled, err := readAssignment(assignment)
	if err != nil {
		return err
	}
	for _, id := range doubled {
		g.cfg.Logger.Error("two nodes run under one id, only the one started last is used: stop one of them, or give it another node id and data directory",
			"node", id, "group", g.cfg.Group)
	}
	if was := g.table.Load(); was != nil && t.Generation <= was.Generation {
		return nil // the same again
	}
	g.table.Store(t)
	g.cfg.Logger.Info("new assignment", "generation", t.Generation, "nodes", len(t.Members), "own", g.own(t))
	g.cfg.OnTable(t)
	return nil
}

// own notes which partitions are this node's by t, and returns how many. It will say first which it has
// had longest: after an outage of the coordinator the first node to come back is given everything for a
// moment, and should then keep what it had before.
func (g *Group) own(t *placement.Table) int {
	since := make(map[int32]int64)
	g.mu.Lock()
	defer g.mu.Unlock()
	if in, _ := t.Member(g.cfg.Node); in.Incarnation == g.cfg.Incarnation {
		for _, p := range t.Owned(g.cfg.Node) {
			since[p] = t.Generation
			if was, ok := g.since[p]; ok {
				since[p] = was
			}
		}
	}
	g.since = since
	return len(since)
}
