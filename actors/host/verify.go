package host

import (
	"context"
	"fmt"
	"time"
)

// verifyEvery is half the time after which a group believes a silent member to be gone (O7).
const verifyEvery = int64(3 * time.Second)

// verify finds out whether an owner that has nothing in flight, and so reads no acknowledgements, has
// become stale: whether anything stands behind its last record (O7).
func (o *owner) verify(ctx context.Context) {
	if o.verifying || o.n != o.released || o.now-o.verified < verifyEvery {
		return
	}
	o.verifying = true
	o.host.cfg.Beside.Go(func() {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, end, err := o.host.cfg.Changelog.Bounds(asking, o.p.id)
		o.p.box.call(func(current *owner) {
			if current != o {
				return
			}
			o.verifying = false
			if err != nil || o.n != o.released || o.stopped != nil { // the acknowledgements will tell
				return
			}
			o.verified = o.now
			if end <= o.prev+1 {
				return
			}
			if err := o.checkHole(ctx, o.prev+1, end); err != nil {
				o.stopped = fmt.Errorf("idle: %w", err)
				return
			}
			o.prev = end - 1
		})
	})
}
