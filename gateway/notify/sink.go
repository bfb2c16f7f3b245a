package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// lanes is how many requests of a sink are under way at a time; a partition keeps to one lane.
	lanes = 8
	// laneRoom is how many transitions wait in a lane; the others wait in the log.
	laneRoom = 64
	// settle is how long partitions may come and go before a sink takes notice: moves come in bunches.
	settle = 200 * time.Millisecond
	// commitEvery is how often cursors that moved are saved, refreshEvery how often all are: a log forgets
	// commits that nobody repeats for days.
	commitEvery  = time.Second
	refreshEvery = time.Hour
	commitWithin = 5 * time.Second
	sessionPause = time.Second
)

// sink delivers to one receiver.
type sink struct {
	cfg     Sink
	log     Log
	cursors Cursors
	open    func(context.Context, int32) ([]*doppelv1.Alert, error)
	client  *http.Client
	lanes   [lanes]*lane
	logger  *slog.Logger
	counts  map[Result]*atomic.Uint64
	failing atomic.Bool
	origin  []int64 // where partitions without a place begin

	mu      sync.Mutex
	owned   map[int32]bool
	places  map[int32]host.AlertPlace // of this session
	changed chan struct{}             // owned has
}

func newSink(cfg Sink, all *Config) (*sink, error) {
	client, err := newClient(&cfg)
	if err != nil {
		return nil, err
	}
	s := &sink{
		cfg: cfg, log: all.Log, cursors: all.Cursors(cfg.Name), open: all.Open, client: client,
		logger: all.Logger.With("sink", cfg.Name), counts: map[Result]*atomic.Uint64{},
		owned: map[int32]bool{}, places: map[int32]host.AlertPlace{}, changed: make(chan struct{}, 1),
	}
	for _, r := range []Result{Delivered, Failed, Dropped, Expired, Lost} {
		s.counts[r] = new(atomic.Uint64)
	}
	for i := range s.lanes {
		s.lanes[i] = &lane{sink: s, number: int32(i), open: map[string]bool{}}
		if cfg.Kind == Alertmanager {
			s.lanes[i].target = &alertmanager{cfg: &s.cfg, told: map[string]told{}}
		} else {
			s.lanes[i].target = &webhook{cfg: &s.cfg, source: all.Source}
		}
	}
	return s, nil
}

func (s *sink) own(p int32, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owned[p] == own {
		return
	}
	if own {
		s.owned[p] = true
	} else {
		delete(s.owned, p)
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run delivers, session by session, until ctx ends.
func (s *sink) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.session(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.logger.WarnContext(ctx, "alerts are read anew", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(sessionPause):
		}
	}
}

// session delivers the alerts of the partitions that are this node's now, until that changes.
func (s *sink) session(ctx context.Context) error {
	s.mu.Lock()
	owned := maps.Clone(s.owned)
	s.mu.Unlock()
	if len(owned) == 0 {
		s.await(ctx)
		return nil
	}
	from, ends, err := s.begin(ctx, owned)
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range s.lanes {
		l.begin(ends)
		wg.Go(func() { l.run(inner) })
	}
	tailed := make(chan error, 1)
	wg.Go(func() {
		tailed <- s.log.Tail(inner, from, func(p host.Published) error {
			select {
			case s.lanes[p.Partition%lanes].in <- p:
				return nil
			case <-inner.Done():
				return inner.Err()
			}
		})
	})
	err = s.commit(ctx, tailed)
	cancel()
	wg.Wait()
	last, done := context.WithTimeout(context.WithoutCancel(ctx), commitWithin)
	defer done()
	if lastErr := s.save(last, nil); lastErr != nil {
		s.logger.WarnContext(ctx, "places not saved, some notifications will come again", "err", lastErr)
	}
	s.mu.Lock()
	clear(s.places)
	s.mu.Unlock()
	return err
}

// await waits until partitions come or go, and a moment longer.
func (s *sink) await(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.changed:
	}
	s.pause(ctx)
}

// pause lets further partitions come and go.
func (s *sink) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settle):
	}
	select {
	case <-s.changed:
	default:
	}
}

// begin finds out where to begin.
func (s *sink) begin(ctx context.Context, owned map[int32]bool) (from map[int32]int64, ends []int64, err error) {
	stored, err := s.cursors.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	starts, ends, err := s.log.Bounds(ctx)
	if err != nil {
		return nil, nil, err
	}
	places, fresh := make(map[int32]host.AlertPlace), make(map[int32]host.AlertPlace)
	from = make(map[int32]int64)
	for p := range owned {
		if int(p) >= len(ends) {
			return nil, nil, fmt.Errorf("doppel.alerts has no partition %d", p)
		}
		at, ok := stored[p]
		switch {
		case !ok, at.Next > ends[p]: // another log
			at = host.AlertPlace{Next: ends[p], Offset: -1}
			if int(p) < len(s.origin) && !ok {
				at.Next = max(starts[p], min(s.origin[p], ends[p]))
			}
			fresh[p] = at
		case at.Next < starts[p]:
			s.logger.ErrorContext(ctx, "retention removed alerts that were not delivered", "partition", p, "lost", starts[p]-at.Next)
			s.counts[Lost].Add(uint64(starts[p] - at.Next))
			at.Next = starts[p]
		}
		places[p], from[p] = at, at.Next
	}
	if len(fresh) > 0 {
		if err := s.cursors.Save(ctx, fresh); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	s.places = places
	s.mu.Unlock()
	return from, ends, nil
}

// commit saves places now and then, until the session is over: nil because its partitions are others.
func (s *sink) commit(ctx context.Context, tailed <-chan error) error {
	t := time.NewTicker(commitEvery)
	defer t.Stop()
	saved := map[int32]host.AlertPlace{}
	refreshed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-tailed:
			return fmt.Errorf("read alerts: %w", errors.Join(err, ctx.Err()))
		case <-s.changed:
			s.pause(ctx)
			return nil
		case <-t.C:
		}
		if time.Since(refreshed) > refreshEvery {
			clear(saved)
			refreshed = time.Now()
		}
		if err := s.save(ctx, saved); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "places not saved", "err", err)
		}
	}
}

// save saves the places that are not among saved, and notes them there.
func (s *sink) save(ctx context.Context, saved map[int32]host.AlertPlace) error {
	moved := map[int32]host.AlertPlace{}
	s.mu.Lock()
	for p, at := range s.places {
		if before, ok := saved[p]; !ok || before != at {
			moved[p] = at
		}
	}
	s.mu.Unlock()
	if len(moved) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitWithin)
	defer cancel()
	err := s.cursors.Save(ctx, moved)
	if err == nil && saved != nil {
		maps.Copy(saved, moved)
	}
	return err
}

// place and reach are how far the session is with a partition.
func (s *sink) place(p int32) host.AlertPlace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places[p]
}

func (s *sink) reach(p int32, at host.AlertPlace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[p] = at
}

// lag is the number of records between the places and the ends given.
func (s *sink) lag(ends []int64) (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, at := range s.places {
		if int(p) < len(ends) {
			sum += max(0, ends[p]-at.Next)
		}
	}
	return sum
}

// wants says whether an alert is to be told to this receiver.
func (s *sink) wants(a *doppelv1.Alert) bool {
	switch {
	case a.GetSilenced(), a.GetShadow(), a.GetSeverity() < s.cfg.severity, a.GetFireTime() == nil:
		return false
	case a.GetState() == doppelv1.AlertState_FIRING:
	case a.GetState() == doppelv1.AlertState_RESOLVED && s.cfg.resolved():
	default:
		return false
	}
	ok, err := s.cfg.match.Matches(a)
	if err != nil {
		s.logger.Warn("filter of a sink fails, the alert is delivered", "alert_id", a.GetId(), "err", err)
		return true
	}
	return ok
}
