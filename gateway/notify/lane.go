package notify

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// backoffMin and backoffMax bound the pause after a failed attempt; half of it is random.
	backoffMin = 500 * time.Millisecond
	backoffMax = time.Minute
	// retryAfterMost is the longest pause that a receiver may ask for.
	retryAfterMost = 5 * time.Minute
)

// target makes requests to a kind of receiver. It belongs to one lane.
type target interface {
	// most is how many transitions fit into a request.
	most() int
	// request is one that tells of some transitions.
	request(events []host.Published) (*request, error)
	// repeats says whether the receiver has to be told again and again of what fires.
	repeats() bool
	// retain tells it all that fires.
	retain(firing []*doppelv1.Alert)
	// repeat is the request that does so.
	repeat(alerts []*doppelv1.Alert) (*request, error)
}

// lane delivers the transitions of some partitions, one request after the other.
type lane struct {
	sink   *sink
	number int32
	target target
	in     chan host.Published
	ends   []int64 // of doppel.alerts, when the session began

	// What outlives a session: failed attempts in a row, and when there may be another one.
	attempts int
	after    time.Time
	// open are the alerts that the receiver was told to fire: it is told their end, whatever they were meanwhile.
	open map[string]bool
}

// begin prepares a session.
func (l *lane) begin(ends []int64) {
	l.in, l.ends = make(chan host.Published, laneRoom), ends
}

// run delivers until ctx ends.
func (l *lane) run(ctx context.Context) {
	var again <-chan time.Time
	var timer *time.Timer
	if l.target.repeats() {
		timer = time.NewTimer(0)
		defer timer.Stop()
		again = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-l.in:
			if !l.handle(ctx, l.gather(first)) {
				return
			}
		case <-again:
			if !l.caughtUp() { // what is over by now would be told behind what fires
				timer.Reset(min(time.Second, l.sink.cfg.ResendEvery))
				continue
			}
			l.repeat(ctx)
			timer.Reset(l.sink.cfg.ResendEvery)
		}
	}
}

// gather takes what waits and fits into one request.
func (l *lane) gather(first host.Published) []host.Published {
	batch := []host.Published{first}
	for len(batch) < l.target.most() {
		select {
		case p := <-l.in:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// caughtUp says that everything was delivered that stood in the log when the session began.
func (l *lane) caughtUp() bool {
	l.sink.mu.Lock()
	defer l.sink.mu.Unlock()
	for p, at := range l.sink.places {
		if p%lanes == l.number && at.Next < l.ends[p] {
			return false
		}
	}
	return len(l.in) == 0
}

// handle delivers what is new in a batch and wanted, and moves the places behind it. false: ctx has ended.
func (l *lane) handle(ctx context.Context, batch []host.Published) bool {
	places := map[int32]host.AlertPlace{}
	var events []host.Published
	for i := range batch {
		b := &batch[i]
		at, ok := places[b.Partition]
		if !ok {
			at = l.sink.place(b.Partition)
		}
		if b.Alert != nil && !at.Told(b) {
			at.Offset, at.Index = b.Offset, b.Index
			if l.sink.wants(b.Alert) || l.concludes(b.Alert) {
				events = append(events, *b)
			}
		}
		at.Next = b.At + 1
		places[b.Partition] = at
	}
	if !l.deliver(ctx, events) {
		return false
	}
	for p, at := range places {
		l.sink.reach(p, at)
	}
	return true
}

// openMost bounds what a lane remembers; beyond it an alert that became less severe may end untold.
const openMost = 100_000

// concludes says whether an alert is over that the receiver takes for open, though it would not be told of one
// like that: it had become less severe, or its tags are others.
func (l *lane) concludes(a *doppelv1.Alert) bool {
	return l.open[a.GetId()] && a.GetState() == doppelv1.AlertState_RESOLVED && l.sink.cfg.resolved() && !a.GetSilenced() && !a.GetShadow()
}

// remember notes what the receiver knows now.
func (l *lane) remember(events []host.Published) {
	for i := range events {
		switch a := events[i].Alert; {
		case a.GetState() != doppelv1.AlertState_FIRING:
			delete(l.open, a.GetId())
		case len(l.open) < openMost:
			l.open[a.GetId()] = true
		}
	}
}

// deliver tries until the receiver has taken or refused the events, or they are too old. false: ctx has ended.
func (l *lane) deliver(ctx context.Context, events []host.Published) bool {
	s := l.sink
	for {
		if events = l.fresh(events); len(events) == 0 {
			return true
		}
		if !l.rest(ctx) {
			return false
		}
		req, err := l.target.request(events)
		var wait time.Duration
		if err == nil {
			wait, err = s.post(ctx, req)
		}
		switch {
		case err == nil:
			s.counts[Delivered].Add(uint64(len(events)))
			l.attempts = 0
			l.remember(events)
			s.recovered()
			return true
		case isRefusal(err) && len(events) > 1: // one of them
			for _, e := range events {
				if !l.deliver(ctx, []host.Published{e}) {
					return false
				}
			}
			return true
		case isRefusal(err):
			s.counts[Dropped].Add(1)
			a := events[0].Alert
			s.logger.WarnContext(ctx, "notification refused, it is dropped", "alert_id", a.GetId(), "device_id", a.GetDevice(), "state", a.GetState().String(), "err", err)
			return true
		case ctx.Err() != nil:
			return false
		}
		s.counts[Failed].Add(1)
		s.failed(ctx, err)
		l.after = time.Now().Add(max(wait, backoff(l.attempts)))
		l.attempts++
	}
}

// rest waits until there may be another attempt. false: ctx has ended.
func (l *lane) rest(ctx context.Context) bool {
	wait := time.Until(l.after)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// fresh leaves out what is too old to be told.
func (l *lane) fresh(events []host.Published) []host.Published {
	kept := events[:0:0]
	for _, e := range events {
		if time.Since(e.Alert.GetUpdateTime().AsTime()) < l.sink.cfg.MaxAge {
			kept = append(kept, e)
			continue
		}
		l.sink.counts[Expired].Add(1)
		l.sink.logger.Warn("notification is too old to be delivered", "alert_id", e.Alert.GetId(), "device_id", e.Alert.GetDevice())
	}
	return kept
}

// repeat tells what fires. What fails is told the next time.
func (l *lane) repeat(ctx context.Context) {
	s := l.sink
	var firing []*doppelv1.Alert
	s.mu.Lock()
	var mine []int32
	for p := range s.places {
		if p%lanes == l.number {
			mine = append(mine, p)
		}
	}
	s.mu.Unlock()
	for _, p := range mine {
		open, err := s.open(ctx, p)
		if err != nil {
			s.logger.DebugContext(ctx, "open alerts not read", "partition", p, "err", err)
			continue
		}
		for _, a := range open {
			if a.GetState() == doppelv1.AlertState_FIRING && s.wants(a) {
				firing = append(firing, a)
			}
		}
	}
	l.target.retain(firing)
	for len(firing) > 0 && ctx.Err() == nil {
		n := min(len(firing), l.target.most())
		req, err := l.target.repeat(firing[:n])
		if err == nil {
			_, err = s.post(ctx, req)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.counts[Failed].Add(1)
				s.failed(ctx, err)
			}
			return
		}
		s.recovered()
		firing = firing[n:]
	}
}

func backoff(attempt int) time.Duration {
	d := min(backoffMin<<min(attempt, 16), backoffMax)
	return d/2 + rand.N(d/2+1)
}

// failed says once that a receiver does not take anything, recovered that it does again.
func (s *sink) failed(ctx context.Context, err error) {
	if !s.failing.Swap(true) {
		s.logger.WarnContext(ctx, "notifications are not delivered, they wait in the log", "err", err)
		return
	}
	s.logger.DebugContext(ctx, "notifications are still not delivered", "err", err)
}

func (s *sink) recovered() {
	if s.failing.Swap(false) {
		s.logger.Info("notifications are delivered again")
	}
}
