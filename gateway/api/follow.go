package api

import (
	"context"
	"time"
)

const (
	// followPace is the shortest time between two rounds of changes to another node: with that of
	// the watch behind it, a change is seen elsewhere a good tenth of a second later at most.
	followPace = 25 * time.Millisecond
	// followBeat is the longest time between two messages to it.
	followBeat = time.Second
	// followIDs is how many ids go into one message.
	followIDs = 2048
)

// FollowChanges tells another node which twins of this one change, beginning behind a place that it
// was told before (incarnation 0: now), until ctx ends, tell fails or the node shuts down, which is no
// error. tell is called at once, and at least every second; anew says, in the first call, that changes
// behind the place given may have gone by.
func (h *Hub) FollowChanges(ctx context.Context, incarnation, seq uint64, tell func(incarnation, seq uint64, ids []string, anew bool) error) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.followers++
	h.record()
	h.mu.Unlock()
	defer h.unfollow()

	anew := incarnation != h.incarnation || seq < h.localFloor.Load() || seq > h.changes.seq.Load()
	if anew {
		seq = h.changes.seq.Load()
	}
	if err := tell(h.incarnation, seq, nil, anew); err != nil {
		return err
	}
	beat := newPulse(followBeat, h.done)
	defer beat.stop()
	w := newWaiter()
	defer h.changes.forget(w)
	for {
		h.changes.armAll(w)
		upTo := h.changes.seq.Load()
		if upTo > seq {
			sent, err := h.tellOwn(seq, upTo, tell)
			if err != nil {
				return err
			}
			seq = upTo
			if sent {
				beat.sent()
			}
			if err := beat.rest(ctx, time.Now().Add(followPace)); err != nil {
				return h.endFollow(ctx, seq, tell)
			}
			continue
		}
		why, err := beat.wait(ctx, w.bell)
		if err != nil {
			return h.endFollow(ctx, seq, tell)
		}
		if why == wakeHeartbeat {
			if err := tell(h.incarnation, seq, nil, false); err != nil {
				return err
			}
		}
	}
}

// endFollow tells what is left to tell by a node that shuts down.
func (h *Hub) endFollow(ctx context.Context, seq uint64, tell func(incarnation, seq uint64, ids []string, anew bool) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := h.tellOwn(seq, h.changes.seq.Load(), tell)
	return err
}

// tellOwn tells which twins of this node changed in (after, upTo]: others' changes the others tell.
func (h *Hub) tellOwn(after, upTo uint64, tell func(incarnation, seq uint64, ids []string, anew bool) error) (sent bool, err error) {
	var ids []string
	for shard := range changeShards {
		for from, done := after, false; !done; {
			ids, from, done = h.changes.since(shard, ids, from, upTo, true)
			if len(ids) < followIDs {
				continue
			}
			if err := tell(h.incarnation, after, ids, false); err != nil {
				return false, err
			}
			sent, ids = true, nil
		}
	}
	if len(ids) == 0 && !sent {
		return false, nil
	}
	return true, tell(h.incarnation, upTo, ids, false)
}

func (h *Hub) unfollow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followers--
	h.rest()
}
