package api

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

var errHubClosed = errors.New("the node is shutting down")

// HubConfig of a Hub.
type HubConfig struct {
	// Transitions is how many alert transitions are kept for subscribers that are slow or come
	// back. Default 65,536 (about 0.5 KB each).
	Transitions int
	// Linger is how long changes are still recorded after the last subscriber of twins left, so
	// that it can come back with its token. Default 2 min.
	Linger time.Duration
}

// Hub is where partitions tell what changed, and where subscribers find it. It implements
// host.Watchers: the partitions' side neither blocks nor waits for any subscriber.
type Hub struct {
	cfg         HubConfig
	incarnation uint64 // tokens of another one are worth nothing
	changes     changes
	transitions *transitions

	watched atomic.Bool
	// floor is the change number from which on nothing was left out.
	floor atomic.Uint64

	mu     sync.Mutex
	subs   int // subscribers of twins
	linger *time.Timer
	closed bool
	done   chan struct{}
}

var _ host.Watchers = (*Hub)(nil)

// NewHub returns a Hub without subscribers.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Transitions <= 0 {
		cfg.Transitions = 65_536
	}
	if cfg.Linger <= 0 {
		cfg.Linger = 2 * time.Minute
	}
	return &Hub{
		cfg:         cfg,
		incarnation: rand.Uint64(),
		transitions: newTransitions(cfg.Transitions),
		done:        make(chan struct{}),
	}
}

// TwinsWatched implements host.Watchers.
func (h *Hub) TwinsWatched() bool { return h.watched.Load() }

// TwinChanged implements host.Watchers.
func (h *Hub) TwinChanged(_ int32, device string, _ uint64) { h.changes.note(device) }

// AlertChanged implements host.Watchers.
func (h *Hub) AlertChanged(t *host.Transition) {
	h.transitions.add(transition{
		partition: t.Partition,
		at:        place{offset: t.Offset, index: int32(t.Index)},
		alert:     codec.Alert(t.Device, &t.Alert),
	})
}

// Close ends every watch with UNAVAILABLE and takes no new ones. Call it before the server stops
// gracefully, which otherwise waits for watches that never end.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	h.watched.Store(false)
	if h.linger != nil {
		h.linger.Stop()
	}
	close(h.done)
}

// joinTwins has changes recorded from now on. Each join is followed by a leaveTwins.
func (h *Hub) joinTwins() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errHubClosed
	}
	h.subs++
	if h.linger != nil {
		h.linger.Stop()
		h.linger = nil
	}
	if !h.watched.Load() {
		// What changed so far went by unrecorded.
		h.floor.Store(h.changes.seq.Add(1))
		h.watched.Store(true)
	}
	return nil
}

func (h *Hub) leaveTwins() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs--
	if h.subs > 0 || h.closed {
		return
	}
	h.linger = time.AfterFunc(h.cfg.Linger, h.forgetChanges)
}

func (h *Hub) forgetChanges() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs > 0 || h.closed {
		return
	}
	h.watched.Store(false)
	h.changes.clear()
}
