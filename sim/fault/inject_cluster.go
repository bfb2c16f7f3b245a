package fault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// cluster lets a fault happen to the nodes of a cluster together.
func (in *injector) cluster(ctx context.Context, f Fault) error {
	switch f.Kind {
	case Rolling:
		return in.rolling(ctx, f.For)
	case Scale:
		return in.scale(ctx, f.For)
	case Silence:
		return in.silence(ctx, f.For)
	default:
		return fmt.Errorf("%s does not happen to clusters", f.Kind)
	}
}

// rolling restarts one node after another, each once the one before serves again and a while has passed.
func (in *injector) rolling(ctx context.Context, between time.Duration) error {
	var errs []error
	for _, n := range in.rig.nodes {
		_, err := in.process(ctx, &n.process, Fault{Subject: n.name, Kind: Terminate})
		errs = append(errs, err)
		if !await(ctx, startLimit, func() bool { return n.ready(ctx) }) {
			errs = append(errs, fmt.Errorf("%s is not ready within %v after a restart", n.name, startLimit))
		}
		sleep(ctx, between)
	}
	return errors.Join(errs...)
}

// scale lets all nodes but the first leave, one after another, and come back after a while.
func (in *injector) scale(ctx context.Context, away time.Duration) error {
	var errs []error
	some := in.rig.nodes[1:]
	for _, n := range some {
		n.fault.Lock()
		defer n.fault.Unlock()
		in.doom(n.name)
		errs = append(errs, n.terminate())
	}
	sleep(ctx, away)
	for _, n := range some {
		if ctx.Err() == nil {
			errs = append(errs, n.run(ctx))
		}
	}
	return errors.Join(errs...)
}

// silence cuts all nodes off from Kafka for a while.
func (in *injector) silence(ctx context.Context, d time.Duration) error {
	var all sync.WaitGroup
	errs := make([]error, len(in.rig.nodes))
	for i, n := range in.rig.nodes {
		c := in.rig.cables[Between(n.name, Kafka)]
		all.Go(func() { errs[i] = c.strike(ctx, Fault{Kind: Stall, For: d}) })
	}
	all.Wait()
	return errors.Join(errs...)
}
