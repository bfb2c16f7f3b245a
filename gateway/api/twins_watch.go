package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/doppel-iot/doppel/actors/filter"
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
	match  filter.Filter
	mask   mask
	pulse  *pulse
	waiter *waiter
	looked uint64 // every change up to it was looked at
	cursor uint64 // every change up to it was sent
	// owed are twins that changed and could not be read, because their partitions move.
	owed    map[string]struct{}
	shown   *shownTwins // nil: no filter, so what is there is shown
	partial bool        // some of a snapshot was sent, and not all
}

// WatchTwins sends the twins asked for as they are, then their changes, merged to at most ten
// rounds a second. A subscriber that reads slowly gets later states, not more of them.
func (s *twinService) WatchTwins(req *doppelv1.WatchTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchTwinsResponse]) error {
	if err := checkDevices("ids", req.GetIds()); err != nil {
		return err
	}
	match, err := compileFilter(s.filter, req.GetFilter())
	if err != nil {
		return err
	}
	m, err := newMask(req.GetReadMask(), (*doppelv1.Twin)(nil))
	if err != nil {
		return err
	}
	every, err := heartbeatOf(req.GetHeartbeat())
	if err != nil {
		return err
	}
	var from twinsPlace
	resumes := req.GetResumeToken() != ""
	if resumes {
		if from, err = parseTwinsToken(req.GetResumeToken()); err != nil {
			return err
		}
	}

	w := &twinWatch{
		s: s, ctx: stream.Context(), send: stream.Send,
		ids: unique(req.GetIds()), match: match, mask: m,
		pulse: newPulse(every, s.hub.done), waiter: newWaiter(), looked: from.seq, cursor: from.seq,
	}
	if match.String() != "" {
		w.shown = &shownTwins{unknown: true} // until a snapshot begins
	}
	defer w.pulse.stop()
	if err := s.hub.joinTwins(w.ctx, w.waiter); err != nil {
		return err
	}
	defer s.hub.leaveTwins(w.waiter)
	if len(w.ids) > 0 {
		s.hub.changes.watchIDs(w.waiter, w.ids)
		defer s.hub.changes.unwatchIDs(w.waiter, w.ids)
	} else {
		defer s.hub.changes.forget(w.waiter)
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	switch {
	case !resumes:
		err = w.snapshot()
	case from.incarnation != s.hub.incarnation || from.seq > s.hub.changes.seq.Load():
		err = w.startOver("the token is of another node or of this one before it restarted", 0)
	case from.partial:
		err = w.snapshot()
	}
	if err != nil {
		return err
	}
	return w.run()
}

func (w *twinWatch) run() error {
	for {
		w.arm()
		if reason := w.s.hub.lostSince(w.cursor); reason != "" {
			if err := w.startOver(reason, w.s.hub.changes.seq.Load()-w.cursor); err != nil {
				return err
			}
			continue
		}
		if upTo := w.s.hub.changes.seq.Load(); upTo > w.looked || len(w.owed) > 0 {
			began := time.Now()
			sent, err := w.round(upTo)
			if err != nil {
				return err
			}
			switch {
			case len(w.owed) > 0:
				if err := w.pulse.restBeating(w.ctx, availableEvery, w.beat); err != nil {
					return err
				}
				continue
			case sent:
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
			if err := w.beat(); err != nil {
				return err
			}
		}
	}
}

func (w *twinWatch) beat() error {
	return w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}}})
}

// startOver tells of a gap and sends a fresh snapshot, once it is to be had. missed is how many changes there
// were at most, 0 if nobody knows.
func (w *twinWatch) startOver(reason string, missed uint64) error {
	w.cursor = w.s.hub.changes.seq.Load()
	w.partial = true // the token of the gap leads to a snapshot
	err := w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Gap{Gap: &doppelv1.Gap{Missed: missed, Reason: reason}}})
	if err != nil {
		return err
	}
	return w.pulse.untilAvailable(w.ctx, w.snapshot, w.beat)
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
	w.looked, w.owed, w.partial = w.cursor, nil, true
	w.shown.begin()
	one := func(t *doppelv1.Twin) error {
		w.shown.enters(t.GetId())
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
			ok, err := w.match.Matches(t)
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
	w.partial = false
	return w.emit(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_SnapshotDone{SnapshotDone: &emptypb.Empty{}}})
}

// round sends what changed since the last one, up to a number, and what is owed. The cursor moves
// there unless something is owed still: a token must not pass that over.
func (w *twinWatch) round(upTo uint64) (sent bool, err error) {
	r := twinRound{w: w}
	owed := slices.Collect(maps.Keys(w.owed))
	w.owed = nil
	if err := r.fetch(owed); err != nil {
		return false, err
	}
	if len(w.ids) > 0 {
		err = r.fetch(w.s.hub.changes.amongIDs(nil, w.ids, w.looked))
	} else {
		err = r.all(upTo)
	}
	if err != nil {
		return false, err
	}
	w.looked = upTo
	if len(w.owed) == 0 {
		w.cursor = upTo
	}
	// The last message, held back until now, is the first whose token covers the round.
	if r.held != nil {
		err = w.emit(r.held)
	}
	return r.held != nil, err
}

// emit sends a message with the token of what was sent in full before it.
func (w *twinWatch) emit(m *doppelv1.WatchTwinsResponse) error {
	m.ResumeToken = twinsPlace{incarnation: w.s.hub.incarnation, seq: w.cursor, partial: w.partial}.token()
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
		for after, done := r.w.looked, false; !done; {
			buf, after, done = r.w.s.hub.changes.since(shard, buf, after, upTo, false)
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

// fetch reads twins that changed and sends those that match; one that is not there was deleted, unless some
// partition could not be read: then it is owed.
func (r *twinRound) fetch(ids []string) error {
	for len(ids) > 0 {
		chunk := ids[:min(len(ids), watchFetch)]
		ids = ids[len(chunk):]
		twins, err := r.w.s.twins.Twins(r.w.ctx, chunk)
		moving := unavailable(err)
		if err != nil && !moving {
			return err
		}
		there := make(map[string]struct{}, len(twins))
		for _, t := range twins {
			there[t.GetId()] = struct{}{}
			ok, err := r.w.match.Matches(t)
			if err != nil {
				return err
			}
			if !ok {
				if err := r.gone(t.GetId()); err != nil {
					return err
				}
				continue
			}
			r.w.shown.enters(t.GetId())
			r.w.mask.prune(t.ProtoReflect())
			if err := r.put(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_Changed{Changed: t}}); err != nil {
				return err
			}
		}
		for _, id := range chunk {
			if _, ok := there[id]; ok {
				continue
			}
			if moving {
				if r.w.owed == nil {
					r.w.owed = make(map[string]struct{})
				}
				r.w.owed[id] = struct{}{}
				continue
			}
			if err := r.gone(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone tells that a twin was deleted, or does not pass the filter any more; of a twin that was not shown there is
// nothing to tell.
func (r *twinRound) gone(id string) error {
	if !r.w.shown.leaves(id) {
		return nil
	}
	return r.put(&doppelv1.WatchTwinsResponse{Event: &doppelv1.WatchTwinsResponse_DeletedId{DeletedId: id}})
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
