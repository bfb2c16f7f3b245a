package command

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// lookEvery is how often devices that commands wait for are looked at although nothing was heard of
// them: their partition may be another node's by now.
const lookEvery = 5 * time.Second

// Run sends commands until ctx ends; those that have no answer then fail.
func (b *Book) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer b.close()
	for range b.cfg.Workers {
		wg.Go(func() { b.work(ctx) })
	}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			b.each(func(l *line) {
				if l.absent {
					b.turn(l)
				}
			})
		}
	}
}

func (b *Book) each(fn func(*line)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		fn(l)
	}
}

// close ends all commands: those that were not sent can be taken by another node.
func (b *Book) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.abandon(func(*line) bool { return true }, host.ErrClosed, fmt.Errorf("the node ends: %w", ErrUncertain))
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.lines) // no worker comes to those it was to look at
	b.ready = nil
}

// Served is told of every partition that this node begins or ceases to serve. Commands that were not sent
// are another node's then; a reply to one that was sent comes to every node, this one too.
func (b *Book) Served(p int32, serving bool) {
	if !serving {
		b.abandon(func(l *line) bool { return l.partition == p }, host.ErrUnavailable, nil)
	}
}

// abandon ends the commands of lines that pick says: those that wait, and with sent those that do not.
func (b *Book) abandon(pick func(*line) bool, waiting, sent error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		if !pick(l) {
			continue
		}
		all := l.waiting
		l.waiting = nil
		for _, e := range all {
			b.finish(e, Answer{}, waiting)
		}
		if l.current != nil && sent != nil {
			b.finish(l.current, Answer{}, sent)
		}
		b.found(l)
		b.drop(l)
	}
}

// Watching says whether Changed needs to be told of anything.
func (b *Book) Watching() bool { return b.away.Load() > 0 }

// Changed is told of twins that changed, from the goroutines of partitions: a device that commands wait
// for may be there now. It does not block.
func (b *Book) Changed(device string) {
	if _, awaited := b.absent.Load(device); !awaited {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.lines[device]; l != nil {
		b.turn(l)
	}
}

// miss notes that a device is offline, found that it is not, or that nobody waits for it. Under mu.
func (b *Book) miss(l *line) {
	if !l.absent {
		l.absent = true
		b.absent.Store(l.device, nil)
		b.away.Add(1)
	}
}

func (b *Book) found(l *line) {
	if l.absent {
		l.absent = false
		b.absent.Delete(l.device)
		b.away.Add(-1)
	}
}

// turn lets a worker look at a line whose first command may be sent. Under mu.
func (b *Book) turn(l *line) {
	switch {
	case l.busy:
		l.again = true
	case l.current == nil && len(l.waiting) > 0:
		l.busy = true
		b.ready = append(b.ready, l)
		b.ring()
	}
}

func (b *Book) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// work serves lines until ctx ends.
func (b *Book) work(ctx context.Context) {
	for {
		l := b.next()
		if l == nil {
			select {
			case <-ctx.Done():
				return
			case <-b.wake:
			}
			continue
		}
		b.serve(ctx, l)
	}
}

func (b *Book) next() *line {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ready) == 0 {
		return nil
	}
	l := b.ready[0]
	b.ready[0] = nil
	if b.ready = b.ready[1:]; len(b.ready) > 0 {
		b.ring()
	}
	return l
}

// serve sends the first command of a line if its device is there.
func (b *Book) serve(ctx context.Context, l *line) {
	online, err := b.cfg.Presence.Online(ctx, l.partition, l.device)
	b.mu.Lock()
	l.busy = false
	var e *entry
	switch {
	case ctx.Err() != nil: // close ends them
	case err != nil:
		for len(l.waiting) > 0 {
			b.finish(l.waiting[0], Answer{}, err)
		}
	case !online:
		b.missed(l)
	case len(l.waiting) > 0:
		b.found(l)
		e = l.waiting[0]
		l.waiting, l.current = l.waiting[1:], e
		e.sent = true
	}
	if e == nil && l.again {
		b.turn(l)
	}
	l.again = false
	b.drop(l)
	b.mu.Unlock()
	if e != nil {
		b.send(ctx, e)
	}
}

// missed fails the commands that do not wait for an absent device.
func (b *Book) missed(l *line) {
	for i := 0; i < len(l.waiting); {
		if l.waiting[i].Queue {
			i++
			continue
		}
		b.finish(l.waiting[i], Answer{}, ErrOffline) // takes it out
	}
	if len(l.waiting) > 0 && !l.absent {
		b.miss(l)
		l.again = true // it may have come before it was missed
	}
}

// send hands a command to the broker. Its reply may come before that is over.
func (b *Book) send(ctx context.Context, e *entry) {
	ctx, cancel := context.WithDeadline(ctx, e.deadline)
	defer cancel()
	b.mu.Lock()
	m := &Message{Device: e.Device, Name: e.Name, Body: e.Body, Correlation: e.correlation, Expiry: time.Until(e.deadline)}
	over := e.over
	b.mu.Unlock()
	if over {
		return
	}
	err := b.cfg.Sender.Send(ctx, m)
	if err == nil || ctx.Err() != nil { // its timer, or the end of the node, is about to end it
		return
	}
	if !errors.Is(err, ErrNotSent) {
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish(e, Answer{}, err)
}
