package host

import (
	"context"
	"fmt"
	"time"
)

const (
	// verifyEvery is half the time after which a group believes a silent member to be gone (O7).
	verifyEvery = int64(3 * time.Second)
	verifyRetry = int64(250 * time.Millisecond)
)

// vigil is what an owner knows of its own currency, and the reads that want to know it.
type vigil struct {
	verified int64 // when the log was last seen to have nothing of others behind our records
	asked    int64 // when the question under way was put; 0: none is
	next     int64 // not before is one put
	mute     bool  // the last one had no answer, and nothing was acknowledged since
	reads    []*reading
	waiting  []*reading // for a release
	swept    int64      // when those were looked through
}

// saw notes that nobody has written behind our records.
func (o *owner) saw() { o.vigil.verified, o.vigil.mute = o.now, false }

// verify finds out whether an owner that has nothing in flight, and so reads no acknowledgements, has
// become stale: whether anything stands behind its last record (O7).
func (o *owner) verify(ctx context.Context) {
	v := &o.vigil
	if v.asked != 0 || o.n != o.released || o.now-v.verified < verifyEvery || o.now < v.next {
		return
	}
	v.asked, v.next = o.now, o.now+verifyRetry
	o.host.cfg.Beside.Go(func() {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, end, err := o.host.cfg.Changelog.Bounds(asking, o.p.id)
		o.p.box.call(func(current *owner) {
			if current != o {
				return
			}
			v.asked = 0
			v.mute = v.mute || err != nil
			if err != nil || o.n != o.released || o.stopped != nil { // the acknowledgements will tell
				return
			}
			o.saw()
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
