package node

import (
	"context"
	"os"
	"runtime/debug"
	gometrics "runtime/metrics"
	"time"
)

const (
	// headroom is how much garbage may lie about before the first collection. What messages leave behind
	// is the same for a small fleet as for a large one, and Go, which lets the heap double, would collect
	// the little heap of a small one many times a second: 10 % of a node's CPU at its highest rate.
	headroom = 128 << 20
	// doubling is Go's default, under which large heaps stay.
	doubling = 100
	// mostPercent bounds what a small heap may become when it grows faster than it is looked at.
	mostPercent = 400

	heapLive  = "/gc/heap/live:bytes"
	tuneEvery = time.Second
)

// tuneCollector keeps the garbage collector's target at headroom until ctx ends. The target is the
// process's: a user who has chosen one with GOGC keeps it.
func tuneCollector(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(tuneEvery)
	defer tick.Stop()
	live := []gometrics.Sample{{Name: heapLive}}
	for current := doubling; ; {
		gometrics.Read(live)
		if p := collectorPercent(live[0].Value.Uint64()); p != current {
			debug.SetGCPercent(p)
			current = p
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// collectorPercent is the growth, in percent of the live heap, at which to collect. In steps, because
// a change stops the world for a moment.
func collectorPercent(live uint64) int {
	const step = 50
	p := headroom * 100 / max(live, 1) / step * step
	return int(min(max(p, doubling), mostPercent))
}
