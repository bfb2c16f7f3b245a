package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/host"
)

const (
	defaultHeartbeat = 10 * time.Second
	minHeartbeat     = time.Second
	maxHeartbeat     = 5 * time.Minute
)

// heartbeatOf reads a requested heartbeat: absent is the default, and what is asked for is kept
// within bounds, as page sizes are.
func heartbeatOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return defaultHeartbeat, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, invalid("heartbeat", "is not a duration: write one such as \"10s\"")
	}
	switch v := d.AsDuration(); {
	case v < 0:
		return 0, invalid("heartbeat", "%v is negative: want %v to %v, or none for the default", v, minHeartbeat, maxHeartbeat)
	case v == 0:
		return defaultHeartbeat, nil
	default:
		return min(max(v, minHeartbeat), maxHeartbeat), nil
	}
}

// wake is why a watch goes on.
type wake int

const (
	wakeBell wake = iota
	wakeHeartbeat
)

// pulse lets the goroutine of one watch wait. Not safe for concurrent use.
type pulse struct {
	every  time.Duration
	timer  *time.Timer
	closed <-chan struct{}
}

func newPulse(every time.Duration, closed <-chan struct{}) *pulse {
	return &pulse{every: every, timer: time.NewTimer(every), closed: closed}
}

func (p *pulse) stop() { p.timer.Stop() }

// sent puts the next heartbeat off: something just went out.
func (p *pulse) sent() { p.timer.Reset(p.every) }

// wait returns when the bell rings (nil: never), a heartbeat is due, or the watch must end.
func (p *pulse) wait(ctx context.Context, bell <-chan struct{}) (wake, error) {
	select {
	case <-bell:
		return wakeBell, nil
	case <-p.timer.C:
		p.timer.Reset(p.every)
		return wakeHeartbeat, nil
	case <-p.closed:
		return 0, errHubClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

const (
	// availableEvery is between two attempts to read what is unavailable while it moves, at first and
	// at most.
	availableEvery = 250 * time.Millisecond
	availableMost  = 2 * time.Second
)

// untilAvailable calls read until it meets no partition that moves; heartbeats go on meanwhile.
func (p *pulse) untilAvailable(ctx context.Context, read, beat func() error) error {
	for every := availableEvery; ; every = min(2*every, availableMost) {
		err := read()
		if !unavailable(err) {
			return err
		}
		if err := p.restBeating(ctx, every, beat); err != nil {
			return err
		}
	}
}

// unavailable says whether err passes by itself.
func unavailable(err error) bool {
	return errors.Is(err, host.ErrUnavailable) || errors.Is(err, host.ErrClosed)
}

// restBeating waits, and sends the heartbeat that is due meanwhile.
func (p *pulse) restBeating(ctx context.Context, d time.Duration, beat func() error) error {
	if err := p.rest(ctx, time.Now().Add(d)); err != nil {
		return err
	}
	select {
	case <-p.timer.C:
		p.timer.Reset(p.every)
		return beat()
	default:
		return nil
	}
}

// rest waits until the moment given, heartbeats or not.
func (p *pulse) rest(ctx context.Context, until time.Time) error {
	d := time.Until(until)
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.closed:
		return errHubClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
