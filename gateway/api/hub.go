package api

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

var errHubClosed = errors.New("the node is shutting down")

// Others are the other nodes of the cluster.
type Others interface {
	// FollowChanges follows what changes at the other nodes, and returns when ctx has ended. It calls
	// opened once, as soon as each node that there was at first either tells its changes or turned out
	// not to; changed with twins that changed; and lost whenever changes may have gone by unseen, before
	// any change behind them.
	FollowChanges(ctx context.Context, opened func(), changed func(ids []string), lost func(reason string))
}

// HubConfig of a Hub.
type HubConfig struct {
	// Alerts is where transitions come from. It must be set, or watches of alerts wait in vain.
	Alerts AlertLog
	// Others tell what changes elsewhere while somebody watches twins. Nil: there are no others.
	Others Others
	// Transitions is how many alert transitions are kept for subscribers that are slow or come
	// back; what is older is read from Alerts again. Default 65,536 (about 0.5 KB each).
	Transitions int
	// Linger is how long changes are still recorded after the last subscriber of twins left, so
	// that it can come back with its token. Default 2 min.
	Linger time.Duration
	Log    *slog.Logger // default: none
}

// Hub is where subscribers find what changed: partitions and other nodes tell it of twins, the log of
// alerts, which Run follows, of transitions. It implements host.Watchers: the partitions' side neither
// blocks nor waits for any subscriber.
type Hub struct {
	cfg         HubConfig
	incarnation uint64 // tokens of twins of another one are worth nothing
	changes     changes

	transitions *transitions
	log         atomic.Uint64 // names the log of alerts
	tailing     chan struct{} // closed when the log is followed
	began       sync.Once
	reading     chan struct{} // holds one for each reader of the log

	watched atomic.Bool // changes of this node are recorded
	// floor is the change number from which on nothing was left out, localFloor the same of this
	// node's own changes.
	floor, localFloor atomic.Uint64

	mu        sync.Mutex
	subs      map[*waiter]struct{} // subscribers of twins
	followers int                  // other nodes
	feeds     *feeds               // nil: the others are not followed
	gap       string               // why floor was raised last
	linger    *time.Timer
	closed    bool
	done      chan struct{}
}

// feeds are the changes of other nodes on their way here.
type feeds struct {
	opened chan struct{} // closed when those that answer are there
	stop   context.CancelFunc
	ended  chan struct{}
}

var _ host.Watchers = (*Hub)(nil)

// readersMost is how many subscribers read the log of alerts at a time.
const readersMost = 4

// NewHub returns a Hub without subscribers.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Transitions <= 0 {
		cfg.Transitions = 65_536
	}
	if cfg.Linger <= 0 {
		cfg.Linger = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{
		cfg:         cfg,
		incarnation: rand.Uint64() | 1, // 0 is nobody's
		transitions: newTransitions(cfg.Transitions),
		tailing:     make(chan struct{}),
		reading:     make(chan struct{}, readersMost),
		subs:        make(map[*waiter]struct{}),
		done:        make(chan struct{}),
	}
}

// TwinsWatched implements host.Watchers.
func (h *Hub) TwinsWatched() bool { return h.watched.Load() }

// TwinChanged implements host.Watchers.
func (h *Hub) TwinChanged(_ int32, device string, _ uint64) { h.changes.note(device, true) }

// Close ends every watch with UNAVAILABLE and takes no new ones. Call it before the server stops
// gracefully, which otherwise waits for watches that never end.
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	h.watched.Store(false)
	if h.linger != nil {
		h.linger.Stop()
	}
	f := h.feeds
	h.feeds = nil
	close(h.done)
	h.mu.Unlock()
	f.end()
}

// joinTwins has changes of all nodes recorded from now on, and wakes w when some of them were lost.
// Each join that succeeds is followed by a leaveTwins.
func (h *Hub) joinTwins(ctx context.Context, w *waiter) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return errHubClosed
	}
	h.subs[w] = struct{}{}
	if h.linger != nil {
		h.linger.Stop()
		h.linger = nil
	}
	h.record()
	if h.feeds == nil {
		h.raise("the token is too old: changes elsewhere were not recorded since")
		h.feeds = h.follow() //nolint:contextcheck // they outlive who came first
	}
	opened := h.feeds.opened
	h.mu.Unlock()
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		h.leaveTwins(w)
		return ctx.Err()
	case <-h.done:
		return errHubClosed
	}
}

// record has changes of this node recorded. Caller holds mu.
func (h *Hub) record() {
	if !h.watched.Load() {
		h.raise("the token is too old: changes were not recorded since")
		h.localFloor.Store(h.floor.Load())
		h.watched.Store(true)
	}
}

// raise has whoever has seen no more than what was recorded so far start over. Caller holds mu.
func (h *Hub) raise(reason string) {
	h.gap = reason
	h.floor.Store(h.changes.seq.Add(1))
}

// follow starts to follow the other nodes.
func (h *Hub) follow() *feeds {
	ctx, cancel := context.WithCancel(context.Background())
	f := &feeds{opened: make(chan struct{}), stop: cancel, ended: make(chan struct{})}
	if h.cfg.Others == nil {
		close(f.opened)
		close(f.ended)
		return f
	}
	go func() {
		defer close(f.ended)
		h.cfg.Others.FollowChanges(ctx, sync.OnceFunc(func() { close(f.opened) }), func(ids []string) {
			for _, id := range ids {
				h.changes.note(id, false)
			}
		}, h.lost)
	}()
	return f
}

func (f *feeds) end() {
	if f != nil {
		f.stop()
		<-f.ended
	}
}

// lost has every subscriber start over: changes may have gone by.
func (h *Hub) lost(reason string) {
	h.mu.Lock()
	h.raise(reason)
	all := make([]*waiter, 0, len(h.subs))
	for w := range h.subs {
		all = append(all, w)
	}
	h.mu.Unlock()
	h.changes.ringAll()
	ringNow(all)
}

// lostSince says why a subscriber that has seen all up to cursor has to start over; empty: it has not.
func (h *Hub) lostSince(cursor uint64) string {
	if cursor >= h.floor.Load() {
		return ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gap
}

func (h *Hub) leaveTwins(w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, w)
	h.rest()
}

// rest has changes forgotten a while after the last one who asks for them left. Caller holds mu.
func (h *Hub) rest() {
	if len(h.subs) == 0 && !h.closed && h.linger == nil {
		h.linger = time.AfterFunc(h.cfg.Linger, h.forgetChanges)
	}
}

func (h *Hub) forgetChanges() {
	h.mu.Lock()
	if len(h.subs) > 0 || h.closed {
		h.mu.Unlock()
		return
	}
	h.linger = nil
	f := h.feeds
	h.feeds = nil
	if h.followers == 0 {
		h.watched.Store(false)
		h.changes.clear()
	}
	h.mu.Unlock()
	f.end()
}
