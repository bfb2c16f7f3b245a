package query

import (
	"context"
	"sync"
)

// abreast is how many partitions of a node a question reads at a time: reading one is mostly a wait, for
// the release of what it shows. What a scan has in memory at a node is as many chunks.
const abreast = 8

// each calls read for partitions of this node, several at a time and from as many goroutines, until one
// fails otherwise than by not being served. With an error come the partitions that were being read when
// the time was over.
func each(ctx context.Context, ps []int32, read func(ctx context.Context, p int32) error) (m missed, bad error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		cut bool // some were not read
	)
	one := func(p int32) {
		err := read(within, p)
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if notServed(err) {
			m.partitions = append(m.partitions, p)
			return
		}
		if ctx.Err() != nil {
			m.late = append(m.late, p)
		}
		if bad == nil {
			bad = err
			cancel()
		}
	}
	free := make(chan struct{}, abreast)
	for _, p := range ps {
		if len(ps) == 1 {
			one(p)
			break
		}
		select {
		case free <- struct{}{}:
		case <-within.Done():
		}
		if within.Err() != nil {
			cut = true
			break
		}
		wg.Go(func() {
			defer func() { <-free }()
			one(p)
		})
	}
	wg.Wait()
	if cut && bad == nil {
		bad = ctx.Err()
	}
	return m, bad
}
