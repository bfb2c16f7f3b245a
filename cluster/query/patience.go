package query

import (
	"context"
	"errors"
	"time"
)

var errSilent = errors.New("silent for too long")

// patience ends a stream whose other side is silent for too long while it is listened to; the time
// in which nobody listens does not count. Not safe for concurrent use.
type patience struct {
	most   time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func newPatience(ctx context.Context, most time.Duration) (context.Context, *patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &patience{most: most, cancel: cancel, timer: time.AfterFunc(most, func() { cancel(errSilent) })}
}

func (p *patience) begin() { p.timer.Reset(p.most) }
func (p *patience) end()   { p.timer.Stop() }

func (p *patience) stop() {
	p.timer.Stop()
	p.cancel(nil)
}
