package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// alertsRead is how many transitions a watch takes from the ring at a time, readMost how many it
	// reads of the log.
	alertsRead = 64
	readMost   = 1024
	// tailPatience is how long a watch waits for a node that does not follow the log yet.
	tailPatience = 5 * time.Second
)

// alertWatch is one WatchAlerts call. It lives on the goroutine of the call.
type alertWatch struct {
	s       *alertService
	ctx     context.Context //nolint:containedctx // the context of the call it is
	send    func(*doppelv1.WatchAlertsResponse) error
	match   filter.Filter
	devices map[string]struct{} // empty: all
	min     doppelv1.Severity
	pending bool
	pulse   *pulse
	waiter  *waiter
	at      uint64 // next entry of the ring
	seen    vector // every transition up to it was sent or did not match
	partial bool   // some of a snapshot was sent, and not all
}

// WatchAlerts sends the open alerts, then every transition once and in the order of its device,
// none merged. A token of any node leads to where it was taken, as long as doppel.alerts has what
// followed; else the subscriber is told so and starts over.
func (s *alertService) WatchAlerts(req *doppelv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchAlertsResponse]) error {
	w, err := s.newWatch(req, stream)
	if err != nil {
		return err
	}
	defer w.pulse.stop()
	defer s.hub.transitions.forget(w.waiter)
	var from alertsPlace
	resumes := req.GetResumeToken() != ""
	if resumes {
		if from, err = parseAlertsToken(req.GetResumeToken()); err != nil {
			return err
		}
	}
	if err := s.hub.awaitTail(w.ctx); err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	w.at, w.seen = s.hub.transitions.behind()
	switch {
	case !resumes || from.partial && from.log == s.hub.log.Load():
		err = w.snapshot()
	case from.log != s.hub.log.Load() || len(from.seen) != len(w.seen):
		err = w.startOver("the token is of another log of alerts", 0)
	default:
		err = w.resumeFrom(from.seen)
	}
	if err != nil {
		return err
	}
	return w.run()
}

// awaitTail waits until the node follows the log.
func (h *Hub) awaitTail(ctx context.Context) error {
	t := time.NewTimer(tailPatience)
	defer t.Stop()
	select {
	case <-h.tailing:
		return nil
	case <-t.C:
		return errNoTail
	case <-h.done:
		return errHubClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *alertService) newWatch(req *doppelv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchAlertsResponse]) (*alertWatch, error) {
	if err := checkDevices("devices", req.GetDevices()); err != nil {
		return nil, err
	}
	match, err := compileFilter(s.filter, req.GetFilter())
	if err != nil {
		return nil, err
	}
	if _, known := doppelv1.Severity_name[int32(req.GetMinSeverity())]; !known {
		return nil, invalid("min_severity", "no such severity: %d", req.GetMinSeverity())
	}
	every, err := heartbeatOf(req.GetHeartbeat())
	if err != nil {
		return nil, err
	}
	w := &alertWatch{
		s: s, ctx: stream.Context(), send: stream.Send,
		match: match, min: req.GetMinSeverity(), pending: req.GetIncludePending(),
		pulse: newPulse(every, s.hub.done), waiter: newWaiter(),
	}
	if len(req.GetDevices()) > 0 {
		w.devices = make(map[string]struct{}, len(req.GetDevices()))
		for _, id := range req.GetDevices() {
			w.devices[id] = struct{}{}
		}
	}
	return w, nil
}

func (w *alertWatch) run() error {
	var buf [alertsRead]transition
	for {
		n, ok := w.s.hub.transitions.read(buf[:], w.at, w.waiter)
		if !ok { // the subscriber is slow: the log knows what the ring does not any more
			if err := w.resume(); err != nil {
				return err
			}
			continue
		}
		if n > 0 {
			if err := w.pass(buf[:n]); err != nil {
				return err
			}
			w.at += uint64(n)
			if err := w.ctx.Err(); err != nil {
				return err
			}
			continue
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

func (w *alertWatch) beat() error {
	return w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}}})
}

// resumeFrom resumes behind a token. One that is ahead of the log is of a log that is gone: what it
// has seen says nothing of what comes.
func (w *alertWatch) resumeFrom(seen vector) error {
	if !w.seen.reaches(seen) { // another node may simply have come further
		_, end, err := w.s.hub.cfg.Alerts.Bounds(w.ctx)
		if err != nil {
			return err
		}
		for p := range seen {
			if seen[p].next > end[p] {
				return w.startOver("the token is of another log of alerts", 0)
			}
		}
	}
	w.seen = seen
	return w.resume()
}

// resume takes the watch to where the ring goes on behind what it has seen, and sends what lies
// before that from the log.
func (w *alertWatch) resume() error {
	hub := w.s.hub
	for {
		at, ok := hub.transitions.resume(w.seen)
		if ok {
			w.at = at
			return nil
		}
		_, head := hub.transitions.behind()
		if len(head) != len(w.seen) {
			return w.startOver("doppel.alerts is another one", 0)
		}
		for !w.seen.reaches(head) {
			trs, err := hub.told(w.ctx, w.seen, head)
			if errors.Is(err, host.ErrNotRetained) {
				return w.missed()
			}
			if err != nil {
				return err
			}
			if err := w.pass(trs); err != nil {
				return err
			}
			if len(trs) < readMost { // that was all
				for p := range head {
					w.seen[p].next = max(w.seen[p].next, head[p].next)
				}
			}
		}
	}
}

// pass sends the transitions that match, and were not seen.
func (w *alertWatch) pass(trs []transition) error {
	for i := range trs {
		if !w.seen.fresh(&trs[i]) {
			continue
		}
		ok, err := w.wants(trs[i].alert)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Transition{Transition: trs[i].alert}}); err != nil {
			return err
		}
	}
	return nil
}

// missed starts over behind what the log does not have any more, and tells how many transitions that are at most.
func (w *alertWatch) missed() error {
	start, _, err := w.s.hub.cfg.Alerts.Bounds(w.ctx)
	if err != nil {
		return err
	}
	n := int64(0)
	for p := range w.seen {
		n += max(0, start[p]-w.seen[p].next)
	}
	return w.startOver("the token is too old: transitions behind it are no longer kept", uint64(n))
}

// startOver tells of a gap and sends a fresh snapshot, once it is to be had. missed is 0 if nobody knows.
func (w *alertWatch) startOver(reason string, missed uint64) error {
	w.at, w.seen = w.s.hub.transitions.behind()
	w.partial = true // the token of the gap leads to a snapshot
	err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Gap{Gap: &doppelv1.Gap{Missed: missed, Reason: reason}}})
	if err != nil {
		return err
	}
	return w.pulse.untilAvailable(w.ctx, w.snapshot, w.beat)
}

// snapshot sends the open alerts, oldest first. The position was taken before: a transition
// meanwhile is in the snapshot and comes again behind it.
func (w *alertWatch) snapshot() error {
	w.at, w.seen = w.s.hub.transitions.behind()
	w.partial = true
	alerts, err := w.s.alerts.Alerts(w.ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(alerts, func(a, b *doppelv1.Alert) int {
		return cmp.Or(
			a.GetCreateTime().AsTime().Compare(b.GetCreateTime().AsTime()),
			cmp.Compare(a.GetId(), b.GetId()),
		)
	})
	for _, a := range alerts {
		if a.GetState() == doppelv1.AlertState_RESOLVED || a.GetShadow() {
			continue
		}
		ok, err := w.wants(a)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Snapshot{Snapshot: a}}); err != nil {
			return err
		}
	}
	w.partial = false
	return w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_SnapshotDone{SnapshotDone: &emptypb.Empty{}}})
}

// wants says whether an alert is asked for. One that never fired counts as pending to its end.
func (w *alertWatch) wants(a *doppelv1.Alert) (bool, error) {
	if !w.pending && a.GetFireTime() == nil && a.GetState() != doppelv1.AlertState_FIRING {
		return false, nil
	}
	if a.GetSeverity() < w.min {
		return false, nil
	}
	if len(w.devices) > 0 {
		if _, ok := w.devices[a.GetDevice()]; !ok {
			return false, nil
		}
	}
	return w.match.Matches(a)
}

func (w *alertWatch) emit(m *doppelv1.WatchAlertsResponse) error {
	m.ResumeToken = alertsPlace{log: w.s.hub.log.Load(), seen: w.seen, partial: w.partial}.token()
	if err := w.send(m); err != nil {
		return err
	}
	w.pulse.sent()
	return nil
}
