package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// Config of a Book. Sender and Presence must be set.
type Config struct {
	// Node and Incarnation make correlations unlike those of other nodes and runs.
	Node        string
	Incarnation uint64
	Sender      Sender
	Presence    Presence
	// Workers is how many commands are being handed to the broker at a time. Default 32.
	Workers int
}

// Book is the commands that this node has taken.
type Book struct {
	cfg    Config
	prefix string // of correlations

	// absent are the devices that commands wait for: Changed looks there for every change of any twin.
	absent sync.Map // device -> nil
	away   atomic.Int64

	mu     sync.Mutex
	lines  map[string]*line
	memory memory
	number uint64
	open   int // commands under way
	bytes  int // of their bodies
	ready  []*line
	wake   chan struct{} // holds one while ready may have some
	closed bool
}

// New returns an empty Book. It starts nothing.
func New(cfg Config) *Book {
	cfg.Workers = cmp.Or(cfg.Workers, 32)
	return &Book{
		cfg: cfg, prefix: cfg.Node + "/" + strconv.FormatUint(cfg.Incarnation, 36) + "/",
		lines: make(map[string]*line), memory: memory{keys: make(map[keyOf]*entry)}, wake: make(chan struct{}, 1),
	}
}

// Invoke sends a command to its device and returns the device's answer. A command with a key goes on
// when ctx ends, and can be asked for again; another one that has not been sent is given up. One that was sent
// stays the device's until it answers or its time is over, so that what it says is not taken for the answer
// to the next one.
func (b *Book) Invoke(ctx context.Context, c *Command) (Answer, error) {
	if e, err := b.join(c); e != nil || err != nil {
		return b.await(ctx, e, err)
	}
	online, err := b.cfg.Presence.Online(ctx, c.Partition, c.Device)
	switch {
	case err != nil:
		return Answer{}, err
	case !online && !c.Queue:
		return Answer{}, ErrOffline
	}
	e, err := b.enter(ctx, c, online)
	return b.await(ctx, e, err)
}

// join finds the command that has the key of c.
func (b *Book) join(c *Command) (*entry, error) {
	if c.Key == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.joined(c)
}

func (b *Book) joined(c *Command) (*entry, error) {
	b.memory.forget(time.Now())
	e := b.memory.keys[keyOf{c.Device, c.Key}]
	switch {
	case c.Key == "" || e == nil:
		return nil, nil //nolint:nilnil // there is none
	case e.hash != c.sum():
		return nil, ErrKeyReused
	}
	e.callers++
	return e, nil
}

// enter puts a command at the end of its device's line.
func (b *Book) enter(ctx context.Context, c *Command, online bool) (*entry, error) {
	e := &entry{Command: *c, hash: c.sum(), callers: 1, done: make(chan struct{})}
	e.Timeout = cmp.Or(e.Timeout, DefaultTimeout)
	e.deadline = time.Now().Add(e.Timeout)
	if at, bound := ctx.Deadline(); bound && e.Key == "" && at.Before(e.deadline) {
		e.deadline = at // nobody waits longer
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if other, err := b.joined(c); other != nil || err != nil {
		return other, err // it came in the meantime
	}
	l := b.lines[c.Device]
	switch {
	case b.closed:
		return nil, host.ErrClosed
	case l != nil && len(l.waiting) >= maxWaiting:
		return nil, fmt.Errorf("%d for this device: %w", maxWaiting, ErrFull)
	case b.open >= maxCommands || b.bytes+len(c.Body) > maxBytes:
		return nil, fmt.Errorf("%d, %d bytes, at this node: %w", b.open, b.bytes, ErrFull)
	}
	if l == nil {
		l = &line{device: c.Device, partition: c.Partition}
		b.lines[c.Device] = l
	}
	b.number++
	e.correlation = strconv.AppendUint([]byte(b.prefix), b.number, 36)
	if e.Key != "" {
		e.correlation = []byte("key/" + e.Key)
		b.memory.keys[keyOf{e.Device, e.Key}] = e
	}
	b.open++
	b.bytes += len(e.Body)
	e.timer = time.AfterFunc(time.Until(e.deadline), func() { b.expire(e) })
	l.waiting = append(l.waiting, e)
	if !online {
		b.miss(l) // and look once more: it may have come before it was missed
	}
	b.turn(l)
	return e, nil
}

// await waits for what becomes of an entry, for one of its callers.
func (b *Book) await(ctx context.Context, e *entry, err error) (Answer, error) {
	if err != nil {
		return Answer{}, err
	}
	select {
	case <-e.done:
		return e.answer, e.err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.over { // at the same moment
		return e.answer, e.err
	}
	if e.callers--; e.callers == 0 && e.Key == "" && !e.sent {
		b.finish(e, Answer{}, ctx.Err())
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Answer{}, fmt.Errorf("%w: %w", e.late(), ctx.Err())
	}
	return Answer{}, ctx.Err()
}

// late is why an entry has no answer at its end.
func (e *entry) late() error {
	if e.sent {
		return ErrNoReply
	}
	return ErrExpired
}

func (b *Book) expire(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish(e, Answer{}, e.late())
}

// Reply takes what a device said. It never blocks. What nobody waits for is dropped, and most is: every
// node hears every reply.
func (b *Book) Reply(r *Reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lines[r.Device]
	if l == nil || l.current == nil || l.current.Name != r.Name {
		return
	}
	e := l.current
	if len(r.Correlation) > 0 && string(r.Correlation) != string(e.correlation) {
		return
	}
	if len(r.Answer.Body) > MaxBody {
		b.finish(e, Answer{}, ErrTooLarge)
		return
	}
	b.finish(e, r.Answer, nil)
}

// finish ends a command, and begins the next one of its device. Under mu.
func (b *Book) finish(e *entry, a Answer, err error) {
	if e.over {
		return
	}
	e.over, e.answer, e.err = true, a, err
	e.timer.Stop()
	close(e.done)
	b.open--
	b.bytes -= len(e.Body)
	e.Body = nil
	if e.Key != "" {
		if err == nil {
			b.memory.keep(e, time.Now())
		} else {
			delete(b.memory.keys, keyOf{e.Device, e.Key}) // another attempt is welcome
		}
	}
	l := b.lines[e.Device]
	if l == nil || !l.remove(e) {
		return
	}
	if len(l.waiting) == 0 {
		b.found(l)
	}
	if l.current == nil {
		b.turn(l)
	}
	b.drop(l)
}

// drop forgets a line in which nothing is left. Under mu.
func (b *Book) drop(l *line) {
	if l.idle() {
		b.found(l)
		delete(b.lines, l.device)
	}
}
