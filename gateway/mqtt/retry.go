package mqtt

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// retry delivers again what got another verdict than Released, until ctx ends.
func (l *ledger) retry(ctx context.Context, s *sink) {
	var (
		msgs    []host.Message
		letters []refusal
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wakeRetry:
		case <-timer.C:
		}
		var next int64
		msgs, letters, next = l.takeDue(msgs[:0], letters[:0])
		s.stats.Redelivered.Add(uint64(len(msgs) + len(letters)))
		for _, r := range letters {
			s.refuser.Refuse(ctx, *r.letter, func(err error) { l.settle(r.token, err) })
		}
		if len(msgs) > 0 {
			if err := s.inlet.Deliver(ctx, msgs); err != nil && ctx.Err() == nil {
				l.undelivered(msgs)
			}
			clear(msgs)
		}
		if next > 0 {
			timer.Reset(time.Until(time.Unix(0, next)))
		}
	}
}
