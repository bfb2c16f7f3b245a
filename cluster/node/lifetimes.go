package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// lifetimes runs the parts of a node. They start in one order and stop in the reverse one, each
// stopped part gone before the next is told: what a part still needs outlives it.
type lifetimes struct {
	log    *slog.Logger
	parts  []*part
	failed chan error
}

type part struct {
	name string
	stop func()
	done chan struct{}
}

func newLifetimes(log *slog.Logger) *lifetimes {
	return &lifetimes{log: log, failed: make(chan error, 16)}
}

// start runs a part until its context ends. A part that returns before that ends the node.
func (l *lifetimes) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, stop: cancel, done: make(chan struct{})}
	l.parts = append(l.parts, p)
	go func() {
		defer close(p.done)
		err := run(ctx)
		switch {
		case ctx.Err() == nil && err == nil:
			l.failed <- fmt.Errorf("%s ended", name)
		case ctx.Err() == nil:
			l.failed <- fmt.Errorf("%s: %w", name, err)
		case err != nil:
			l.log.Warn("part stopped with an error", "part", name, "err", err)
		}
	}()
}

// closer registers what is to be closed when its turn comes.
func (l *lifetimes) closer(name string, closeIt func() error) {
	p := &part{name: name, done: make(chan struct{})}
	p.stop = func() {
		defer close(p.done)
		if err := closeIt(); err != nil {
			l.log.Warn("close", "part", name, "err", err)
		}
	}
	l.parts = append(l.parts, p)
}

// stopAll stops every part in reverse order.
func (l *lifetimes) stopAll() {
	for _, p := range slices.Backward(l.parts) {
		started := time.Now()
		p.stop()
		<-p.done
		l.log.Debug("part stopped", "part", p.name, "took", time.Since(started))
	}
	l.parts = nil
}
