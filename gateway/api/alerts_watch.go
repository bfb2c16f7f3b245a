package api

import (
	"cmp"
	"context"
	"math"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// alertsRead is how many transitions a watch takes from the ring at a time.
const alertsRead = 64

// alertWatch is one WatchAlerts call. It lives on the goroutine of the call.
type alertWatch struct {
	s       *alertService
	ctx     context.Context //nolint:containedctx // the context of the call it is
	send    func(*doppelv1.WatchAlertsResponse) error
	match   filter
	devices map[string]struct{} // empty: all
	min     doppelv1.Severity
	pending bool
	pulse   *pulse
	waiter  *waiter
	at      uint64 // next entry of the ring
	seen    vector // every transition up to it was sent or did not match
}

// WatchAlerts sends the open alerts, then every transition once and in the order of its device,
// none merged. A subscriber that falls behind by more than the ring holds is told so and starts
// over.
func (s *alertService) WatchAlerts(req *doppelv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchAlertsResponse]) error {
	w, err := s.newWatch(req, stream)
	if err != nil {
		return err
	}
	var incarnation uint64
	resumes := req.GetResumeToken() != ""
	if resumes {
		if incarnation, w.seen, err = parseAlertsToken(req.GetResumeToken()); err != nil {
			return err
		}
	}
	defer w.pulse.stop()
	defer s.hub.transitions.forget(w.waiter)
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	if !resumes {
		w.at, w.seen = s.hub.transitions.head()
		if err := w.snapshot(); err != nil {
			return err
		}
		return w.run()
	}
	at, ok := s.hub.transitions.resume(w.seen)
	switch {
	case incarnation != s.hub.incarnation:
		err = w.startOver(unknown, "the token is of another node or of this one before it restarted")
	case !ok:
		err = w.startOver(unknown, "the token is too old: transitions behind it are no longer kept")
	default:
		w.at = at
	}
	if err != nil {
		return err
	}
	return w.run()
}

func (s *alertService) newWatch(req *doppelv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[doppelv1.WatchAlertsResponse]) (*alertWatch, error) {
	if err := checkDevices("devices", req.GetDevices()); err != nil {
		return nil, err
	}
	match, err := s.filter.compile(req.GetFilter())
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
		if !ok {
			if err := w.startOver(w.at, "the subscriber was too slow"); err != nil {
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
			err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}}})
			if err != nil {
				return err
			}
		}
	}
}

// pass sends the transitions that match. What the token already covered is passed over.
func (w *alertWatch) pass(trs []transition) error {
	for _, tr := range trs {
		if w.seen.covers(tr.partition, tr.at) {
			continue
		}
		w.seen[tr.partition] = tr.at
		ok, err := w.wants(tr.alert)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Transition{Transition: tr.alert}}); err != nil {
			return err
		}
	}
	return nil
}

// unknown stands for a position that is no longer known.
const unknown = math.MaxUint64

// startOver tells of a gap that began at a position of the ring, and sends a fresh snapshot.
func (w *alertWatch) startOver(from uint64, reason string) error {
	w.at, w.seen = w.s.hub.transitions.head()
	missed := uint64(0)
	if from != unknown {
		missed = w.at - from
	}
	err := w.emit(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Gap{Gap: &doppelv1.Gap{Missed: missed, Reason: reason}}})
	if err != nil {
		return err
	}
	return w.snapshot()
}

// snapshot sends the open alerts, oldest first. The position was taken before: a transition
// meanwhile is in the snapshot and comes again behind it.
func (w *alertWatch) snapshot() error {
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
		if a.GetState() == doppelv1.AlertState_RESOLVED {
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
	return w.match.matches(a)
}

func (w *alertWatch) emit(m *doppelv1.WatchAlertsResponse) error {
	m.ResumeToken = alertsToken(w.s.hub.incarnation, w.seen)
	if err := w.send(m); err != nil {
		return err
	}
	w.pulse.sent()
	return nil
}
