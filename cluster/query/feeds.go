package query

import (
	"context"
	"sync"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// feedLook is how often a Feeds looks for nodes that came or went: a node is followed before it
	// serves anything.
	feedLook = 200 * time.Millisecond
	// feedSilence is how long a node may be silent that tells something every second.
	feedSilence = 3 * time.Second
	// feedRetry is between two attempts to reach a node.
	feedRetry = 200 * time.Millisecond
	// feedGrace is how long a node that went away may take to come back and go on where it was, before
	// its changes count as lost.
	feedGrace = time.Second
)

// Feeds follow what changes at the other nodes.
type Feeds struct{ r *Reader }

// NewFeeds returns the Feeds of the members that cfg knows; it asks no host.
func NewFeeds(cfg Config) *Feeds { return &Feeds{r: New(cfg)} }

// FollowChanges follows all other nodes until ctx ends. It calls opened once, when each node that
// there was at first tells its changes or turned out not to; changed with ids of twins that changed;
// and lost when changes may have gone by, before any behind them.
func (f *Feeds) FollowChanges(ctx context.Context, opened func(), changed func(ids []string), lost func(reason string)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var first sync.WaitGroup
	following := make(map[string]context.CancelFunc) // by address
	ended := make(chan string)
	t := time.NewTicker(feedLook)
	defer t.Stop()
	for look := 0; ; look++ {
		there := make(map[string]struct{})
		for _, n := range f.r.cfg.Members() {
			if n.GetId() == f.r.cfg.Node || n.GetAddress() == "" {
				continue
			}
			there[n.GetAddress()] = struct{}{}
			if following[n.GetAddress()] != nil {
				continue
			}
			ctx, cancel := context.WithCancel(ctx)
			following[n.GetAddress()] = cancel
			feed := &feed{r: f.r, node: n.GetId(), address: n.GetAddress(), changed: changed, lost: lost, began: look > 0, ready: func() {}}
			if look == 0 {
				first.Add(1)
				feed.ready = sync.OnceFunc(first.Done)
			}
			wg.Go(func() {
				feed.run(ctx)
				feed.ready()
				select {
				case ended <- feed.address:
				case <-ctx.Done():
				}
			})
		}
		for address, cancel := range following {
			if _, still := there[address]; !still {
				cancel()
				delete(following, address)
			}
		}
		if look == 0 {
			wg.Go(func() { first.Wait(); opened() })
		}
		select {
		case <-ctx.Done():
			for _, cancel := range following {
				cancel()
			}
			return
		case address := <-ended:
			delete(following, address)
		case <-t.C:
		}
	}
}

// feed follows one node. It lives on one goroutine.
type feed struct {
	r             *Reader
	node, address string
	changed       func(ids []string)
	lost          func(reason string)
	ready         func() // it tells its changes, or does not answer
	began         bool   // it was followed, or others go by without it
	clean         bool   // nothing of it can be lost: it told that it left, or was never there

	incarnation, seq uint64 // of the newest message
}

// run follows the node until ctx ends, again whenever it went away.
func (f *feed) run(ctx context.Context) {
	f.clean = true
	var broke time.Time
	for ctx.Err() == nil {
		heard, err := f.follow(ctx)
		if heard || broke.IsZero() {
			broke = time.Now()
		}
		f.r.cfg.Logger.Debug("changes of a node are not told", "node", f.node, "err", err)
		if time.Since(broke) >= feedGrace {
			f.began = true
			f.ready()
			if !f.clean && ctx.Err() == nil {
				f.clean = true
				f.lost("node " + f.node + " does not tell its changes")
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(feedRetry):
		}
	}
	if !f.clean { // it is no node any more: what it did last may not have come
		f.lost("node " + f.node + " left")
	}
}

// follow takes what the node tells until it goes away; heard says whether it told anything.
func (f *feed) follow(ctx context.Context) (heard bool, err error) {
	c, err := f.r.client(f.address)
	if err != nil {
		return false, err
	}
	ctx, patience := newPatience(ctx, feedSilence)
	defer patience.stop()
	s, err := c.FollowChanges(ctx, &doppelv1.FollowChangesRequest{Incarnation: f.incarnation, Seq: f.seq})
	if err != nil {
		return false, err
	}
	for {
		patience.begin()
		m, err := s.Recv()
		patience.end()
		if err != nil {
			return heard, err
		}
		heard = true
		other := f.incarnation != 0 && m.GetIncarnation() != f.incarnation && !f.clean // it restarted; what it did last may not have come
		if m.GetAnew() && f.began || other {
			f.lost("node " + f.node + " was away")
		}
		f.changed(m.GetIds())
		f.incarnation, f.seq, f.clean, f.began = m.GetIncarnation(), m.GetSeq(), m.GetEnded(), true
		f.ready()
	}
}
