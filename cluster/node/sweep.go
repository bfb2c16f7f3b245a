package node

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// sweep delivers the retained status of all devices once in each epoch of partition 0: whoever owns
// that partition does it for the cluster, because shared subscriptions get no retained messages.
func (a *assembly) sweep(ctx context.Context) error {
	const pause, pauseAfterFailure = 200 * time.Millisecond, 5 * time.Second
	swept := int64(-1)
	for wait := pause; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = pause
		v := a.host.Partition(0)
		if v.State != host.Serving || v.Epoch == swept || a.door.Ready() != nil {
			continue
		}
		if err := a.door.Sweep(ctx); err != nil {
			if ctx.Err() == nil {
				a.log.WarnContext(ctx, "retained status not swept, trying again", "err", err)
			}
			wait = pauseAfterFailure
			continue
		}
		swept = v.Epoch
	}
}
