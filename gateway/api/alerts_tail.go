package api

import (
	"context"
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/doppel-iot/doppel/actors/host"
)

// AlertLog is doppel.alerts: the transitions of all nodes, by partition.
type AlertLog interface {
	// Identity changes when the topic is made anew: places in it mean nothing then.
	Identity(ctx context.Context) (string, error)
	// Bounds are, by partition, the first offset still there and the offset behind the last.
	Bounds(ctx context.Context) (start, end []int64, err error)
	// Read calls fn with what stands at from <= offset < to of each partition, in the order of each.
	// host.ErrNotRetained: some of it is gone.
	Read(ctx context.Context, from, to []int64, fn func(host.Published) error) error
	// Follow calls fn with what stands behind from in all partitions, as it comes, until ctx ends.
	// host.ErrNotRetained: the log does not have what stood there.
	Follow(ctx context.Context, from []int64, fn func(host.Published) error) error
}

const (
	// backlog is how many of the newest records of a partition a node looks at when it starts, so that
	// it knows what was told and subscribers of other nodes find what they have not seen yet.
	backlog = 256
	// tailPause is between two attempts to follow the log.
	tailPause = 250 * time.Millisecond
)

var (
	errNoTail = errors.New("the node does not follow doppel.alerts yet")
	errEnough = errors.New("enough for now")
)

// Run follows doppel.alerts until ctx ends. Watches of alerts wait until it has begun.
func (h *Hub) Run(ctx context.Context) error {
	for {
		err := h.tail(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		h.cfg.Log.WarnContext(ctx, "alerts are followed anew", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tailPause):
		}
	}
}

// Ready is nil when watches of alerts see what happens.
func (h *Hub) Ready() error {
	select {
	case <-h.tailing:
		return nil
	default:
		return errNoTail
	}
}

// tail follows the log from where it was left; from its newest records if that is not there any more.
func (h *Hub) tail(ctx context.Context) error {
	identity, err := h.cfg.Alerts.Identity(ctx)
	if err != nil {
		return err
	}
	start, end, err := h.cfg.Alerts.Bounds(ctx)
	if err != nil {
		return err
	}
	_, head := h.transitions.behind()
	log := xxhash.Sum64String(identity)
	if log != h.log.Load() || !within(head, start, end) {
		head = make(vector, len(start))
		for p := range head {
			head[p] = mark{next: max(start[p], end[p]-backlog), at: nowhere}
		}
		h.log.Store(log)
		h.transitions.restart(head)
	}
	add := func(t host.Published) error {
		h.transitions.add(transitionOf(&t))
		return nil
	}
	if err := h.cfg.Alerts.Read(ctx, offsets(head), end, add); err != nil {
		return err
	}
	h.transitions.reached(end)
	h.began.Do(func() { close(h.tailing) })
	_, head = h.transitions.behind()
	return h.cfg.Alerts.Follow(ctx, offsets(head), add)
}

// within says whether the log still has what stands behind v.
func within(v vector, start, end []int64) bool {
	if len(v) != len(start) {
		return false
	}
	for p := range v {
		if v[p].next < start[p] || v[p].next > end[p] {
			return false
		}
	}
	return true
}

func offsets(v vector) []int64 {
	next := make([]int64, len(v))
	for p := range v {
		next[p] = v[p].next
	}
	return next
}

// told reads at most readMost transitions behind v from the log, up to the marks of to. None: there
// are none. Only a few read at a time: each costs the log a reader of its own.
func (h *Hub) told(ctx context.Context, v, to vector) ([]transition, error) {
	select {
	case h.reading <- struct{}{}:
		defer func() { <-h.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.done:
		return nil, errHubClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	start, _, err := h.cfg.Alerts.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	for p := range v {
		if v[p].next < start[p] && v[p].next < to[p].next {
			return nil, host.ErrNotRetained
		}
	}
	var got []transition
	err = h.cfg.Alerts.Read(ctx, offsets(v), offsets(to), func(t host.Published) error {
		got = append(got, transitionOf(&t))
		if len(got) == readMost {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return got, err
}
