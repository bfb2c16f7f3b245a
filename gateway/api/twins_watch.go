package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// watchPace is the shortest time between two rounds of changes to one subscriber. What changes
	// in between is merged.
	watchPace = 100 * time.Millisecond
	// watchFetch is how many twins are read at a time.
	watchFetch = 256
)

// twinWatch is one WatchTwins call. It lives on the goroutine of the call.
type twinWatch struct {
	s      *twinService
	ctx    context.Context //nolint:containedctx // the context of the call it is
	send   func(*doppelv1.WatchTwinsResponse) error
	ids    []string
	match  filter
	mask   mask
	pulse  *pulse
	waiter *waiter
	cursor uint64 // every change up to it was sent
}

// WatchTwins sends the twins asked for as they are, then their changes, merged to at most ten
// rounds a second. A subscriber that reads slowly gets later states, not more of them.
func (s *twinService) WatchTwins(req *doppelv1.WatchTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchTwinsResponse]) error {
	if err := checkDevices("ids", req.GetIds()); err != nil {
		return err
	}
	match, err := s.filter.compile(req.GetFilter())
	if err != nil {
		return err
	}
	m, err := newMask(req.GetReadMask(), &doppelv1.Twin{})
	if err != nil {
		return err
	}
	every, err := heartbeatOf(req.GetHeartbeat())
	if err != nil {
		return err
	}
	var incarnation, cursor uint64
	resumes := req.GetResumeToken() != ""
	if resumes {
		if incarnation, cursor, err = parseTwinsToken(req.GetResumeToken()); err != nil {
			return err
		}
	}
	if err := s.hub.joinTwins(); err != nil {
		return err
	}
	defer s.hub.leaveTwins()

	w := &twinWatch{
		s: s, ctx: stream.Context(), send: stream.Send,
		ids: unique(req.GetIds()), match: match, mask: m,
		pulse: newPulse(every, s.hub.done), waiter: newWaiter(), cursor: cursor,
	}
	defer w.pulse.stop()
	if len(w.ids) > 0 {
		s.hub.changes.watchIDs(w.waiter, w.ids)
		defer s.hub.changes.unwatchIDs(w.waiter, w.ids)
	} else {
		defer s.hub.changes.forget(w.waiter)
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	reason := ""
	if resumes {
		reason = s.hub.twinsGap(incarnation, cursor)
	}
	return w.run(!resumes || reason != "", reason)
}

// twinsGap says why a token can't be resumed from; empty: it can.
func (h *Hub) twinsGap(incarnation, cursor uint64) string {
	switch {
	case incarnation != h.incarnation:
		return "the token is of another node or of this one before it restarted"
	case cursor < h.floor.Load() || cursor > h.changes.seq.Load():
		return "the token is too old: changes were not recorded since"
	default:
		return ""
	}
}

func (w *twinWatch) run(snapshot bool, gap string) error {
	if gap != "" {
		w.cursor = w.s.hub.changes.seq.Load()
		err := w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Gap{Gap: &doppelv1.Gap{Reason: gap}}})
		if err != nil {
			return err
		}
	}
	if snapshot {
		if err := w.snapshot(); err != nil {
			return err
		}
	}
	for {
		w.arm()
		if upTo := w.s.hub.changes.seq.Load(); upTo > w.cursor {
			began := time.Now()
			sent, err := w.round(upTo)
			if err != nil {
				return err
			}
			if sent {
				if err := w.pulse.rest(w.ctx, began.Add(watchPace)); err != nil {
					return err
				}
				continue
			}
		}
		why, err := w.pulse.wait(w.ctx, w.waiter.bell)
		if err != nil {
			return err
		}
		if why == wakeHeartbeat {
			err := w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}}})
			if err != nil {
				return err
			}
		}
	}
}

// arm has the bell rung by the next change. It comes before the look at the counter, so that no
// change falls in between.
func (w *twinWatch) arm() {
	if len(w.ids) > 0 {
		w.waiter.armed.Store(true)
		return
	}
	w.s.hub.changes.armAll(w.waiter)
}

// snapshot sends the twins as they are. Changes meanwhile come again behind it.
func (w *twinWatch) snapshot() error {
	w.cursor = w.s.hub.changes.seq.Load()
	one := func(t *doppelv1.Twin) error {
		w.mask.prune(t.ProtoReflect())
		return w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Snapshot{Snapshot: t}})
	}
	if len(w.ids) == 0 {
		if err := w.s.each(w.ctx, w.match, one); err != nil {
			return err
		}
	} else {
		twins, err := w.s.twins.Twins(w.ctx, w.ids)
		if err != nil {
			return err
		}
		for _, t := range twins {
			ok, err := w.match.matches(t)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := one(t); err != nil {
				return err
			}
		}
	}
	return w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_SnapshotDone{SnapshotDone: &emptypb.Empty{}}})
}

// round sends what changed since the cursor, up to a number, and moves the cursor there.
func (w *twinWatch) round(upTo uint64) (sent bool, err error) {
	r := twinRound{w: w}
	if len(w.ids) > 0 {
		err = r.fetch(w.s.hub.changes.amongIDs(nil, w.ids, w.cursor))
	} else {
		err = r.all(upTo)
	}
	if err != nil {
		return false, err
	}
	w.cursor = upTo
	// The last message, held back until now, is the first whose token covers the round.
	if r.held != nil {
		err = w.emit(r.held)
	}
	return r.held != nil, err
}

// emit sends a message with the token of what was sent in full before it.
func (w *twinWatch) emit(m *doppelv1.WatchTwinsResponse) error {
	m.ResumeToken = twinsToken(w.s.hub.incarnation, w.cursor)
	if err := w.send(m); err != nil {
		return err
	}
	w.pulse.sent()
	return nil
}

// twinRound is one round of changes on its way out.
type twinRound struct {
	w    *twinWatch
	held *doppelv1.WatchTwinsResponse
}

func (r *twinRound) all(upTo uint64) error {
	var buf []string
	for shard := range changeShards {
		for after, done := r.w.cursor, false; !done; {
			buf, after, done = r.w.s.hub.changes.since(shard, buf, after, upTo)
			if len(buf) < watchFetch {
				continue
			}
			if err := r.fetch(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return r.fetch(buf)
}

// fetch reads twins that changed and sends those that match; one that is gone was deleted.
func (r *twinRound) fetch(ids []string) error {
	for len(ids) > 0 {
		chunk := ids[:min(len(ids), watchFetch)]
		ids = ids[len(chunk):]
		twins, err := r.w.s.twins.Twins(r.w.ctx, chunk)
		if err != nil {
			return err
		}
		there := make(map[string]struct{}, len(twins))
		for _, t := range twins {
			there[t.GetId()] = struct{}{}
			ok, err := r.w.match.matches(t)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			r.w.mask.prune(t.ProtoReflect())
			if err := r.put(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Changed{Changed: t}}); err != nil {
				return err
			}
		}
		for _, id := range chunk {
			if _, ok := there[id]; ok {
				continue
			}
			if err := r.put(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_DeletedId{DeletedId: id}}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *twinRound) put(m *doppelv1.WatchTwinsResponse) error {
	if r.held != nil {
		if err := r.w.emit(r.held); err != nil {
			return err
		}
	}
	r.held = m
	return nil
}

// unique drops repeated ids.
func unique(ids []string) []string {
	seen := make(map[string]struct{}, len(ids))
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	return out
}
