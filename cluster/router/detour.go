package router

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// Ingest is doppel.ingest, the slow path: what is durable in it is safe, and whoever owns the
// partition now or next takes it from there (rules G1, G2).
type Ingest interface {
	// Append makes m durable in partition p; done is called exactly once, from another goroutine. m's
	// bytes stay untouched until then.
	Append(ctx context.Context, p int32, m *host.Message, done func(error))
}

// detour is the slow path of one partition: what is on it and not durable yet.
//
// Order. The two ways may overtake each other: the twins' sequencers repair that for numbered samples,
// and the rest goes by received-at (rule G4). Needless disorder is avoided: when the owner takes
// messages again, those on the slow path are waited for first, so that a door's later messages find
// its earlier ones durable. A log that takes longer than overtakeAfter for that is overtaken.
type detour struct {
	waiting atomic.Int32 // messages, changed under mu

	shunned atomic.Pointer[shunned]

	mu       sync.Mutex
	bytes    int
	overtake bool // waiting for it was in vain; until it is empty nobody does again
	change   chan struct{}
	strays   []stray // from flights, entered and not appended yet
	straying bool    // a goroutine appends them
}

// shunned is a node that said not to serve the partition. For a moment it is believed, whatever the
// routes say: they follow.
type shunned struct {
	address string
	until   time.Time
}

const (
	// overtakeAfter is how long the fast path waits for the slow one.
	overtakeAfter = time.Second
	// lookAgain is how long a full slow path is waited for before the fast one is tried again.
	lookAgain = 100 * time.Millisecond
	// shunFor is how long a node gets nothing of a partition that it does not serve.
	shunFor = 50 * time.Millisecond
)

// route hands the messages of one partition over, by whichever way takes them. begin is when they were
// delivered, for messages to other nodes.
func (r *Router) route(ctx context.Context, begin time.Time, p int32, msgs []host.Message) error {
	if r.cfg.Ingest == nil {
		if err := r.cfg.Owners.Push(ctx, p, msgs); err != nil {
			busy(msgs)
			return err
		}
		return nil
	}
	d := &r.detours[p]
	for {
		err := r.fast(ctx, begin, p, d, msgs)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			busy(msgs)
			return err
		}
		n := r.slow(ctx, p, d, msgs, r.reason(p, err))
		if msgs = msgs[n:]; len(msgs) == 0 {
			return nil
		}
		d.wait(ctx, r, lookAgain, func() bool { return d.hasRoom(&r.cfg) })
		begin = r.now()
	}
}

// fast offers msgs to the owner, behind what is on the slow path.
func (r *Router) fast(ctx context.Context, begin time.Time, p int32, d *detour, msgs []host.Message) error {
	if to := r.owner(p); !to.Local {
		return r.patientHop(ctx, begin, p, to.Address, msgs)
	}
	if d.waiting.Load() > 0 {
		if err := r.cfg.Owners.Takes(p, r.cfg.Patience); err != nil {
			return err
		}
		d.letPass(ctx, r, overtakeAfter)
	}
	return r.cfg.Owners.Offer(ctx, p, msgs, r.cfg.Patience)
}

// slow appends as many of msgs as the window takes and returns their number.
func (r *Router) slow(ctx context.Context, p int32, d *detour, msgs []host.Message, why reason) int {
	ctx = context.WithoutCancel(ctx) // what is handed over is not taken back
	for i := range msgs {
		m := msgs[i] // on its own: msgs is scratch
		if !d.enter(&m, &r.cfg) {
			return i
		}
		r.stats.waiting.Add(1)
		r.append(ctx, p, d, &m, why)
	}
	return len(msgs)
}

// append makes m durable, which has entered d.
func (r *Router) append(ctx context.Context, p int32, d *detour, m *host.Message, why reason) {
	r.cfg.Ingest.Append(ctx, p, m, func(err error) {
		d.leave(m)
		r.stats.waiting.Add(-1)
		v := host.Released
		if err == nil {
			r.stats.slow[why].Add(1)
		} else {
			v = host.Busy // the door keeps it and asks for a way again
			r.stats.failed.Add(1)
		}
		m.Reply.Done([]uint64{m.Token}, v)
	})
}

// take is slow for one message of a flight; it does not block.
func (d *detour) take(r *Router, s *stray) bool {
	if r.cfg.Ingest == nil || !d.enter(&s.msg, &r.cfg) {
		return false
	}
	r.stats.waiting.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.strays = append(d.strays, *s)
	if !d.straying {
		d.straying = true
		r.cfg.Beside.Go(func() { d.stray(r) })
	}
	return true
}

// stray appends what was taken until there is nothing more.
func (d *detour) stray(r *Router) {
	for {
		d.mu.Lock()
		list := d.strays
		d.strays = nil
		d.straying = len(list) > 0
		d.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for i := range list {
			r.append(context.Background(), list[i].part, d, &list[i].msg, list[i].why)
		}
	}
}

// shun notes that a node does not serve the partition.
func (d *detour) shun(address string, now time.Time) {
	d.shunned.Store(&shunned{address, now.Add(shunFor)})
}

func (d *detour) shuns(address string, now time.Time) bool {
	s := d.shunned.Load()
	return s != nil && s.address == address && now.Before(s.until)
}

// reason says why the fast path is closed.
func (r *Router) reason(p int32, err error) reason {
	switch {
	case errors.Is(err, host.ErrSaturated), errors.Is(err, errNoRoom):
		return saturated
	case errors.Is(err, errUnknownOwner):
		return unknownOwner
	case errors.Is(err, errMoving):
		return moving
	case errors.Is(err, errDown), r.cfg.Owners.Partition(p).State == host.Idle:
		return down
	}
	return restoring
}

// weight is what a message on the slow path keeps in memory.
func weight(m *host.Message) int { return len(m.Device) + len(m.Payload) }

func (d *detour) enter(m *host.Message, cfg *Config) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fits(cfg) {
		return false
	}
	d.waiting.Add(1)
	d.bytes += weight(m)
	return true
}

func (d *detour) leave(m *host.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes -= weight(m)
	if d.waiting.Add(-1) == 0 {
		d.overtake = false
	}
	if d.change != nil {
		close(d.change)
		d.change = nil
	}
}

func (d *detour) hasRoom(cfg *Config) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fits(cfg)
}

// fits says that the window takes one more. Under mu.
func (d *detour) fits(cfg *Config) bool {
	return int(d.waiting.Load()) < cfg.Window && d.bytes < cfg.WindowBytes
}

// behind says that messages are to wait for those on the slow path.
func (d *detour) behind() bool {
	if d.waiting.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.overtake
}

// letPass waits until nothing is on the slow path, as long as that is worth it.
func (d *detour) letPass(ctx context.Context, r *Router, limit time.Duration) {
	if !d.behind() || d.wait(ctx, r, limit, func() bool { return d.waiting.Load() == 0 }) {
		return
	}
	d.mu.Lock()
	d.overtake = d.waiting.Load() > 0
	d.mu.Unlock()
}

// wait returns true once ok holds, which it asks whenever a message has left, or false after limit or
// at the end of ctx.
func (d *detour) wait(ctx context.Context, r *Router, limit time.Duration, ok func() bool) bool {
	for end := r.now().Add(limit); ; {
		d.mu.Lock()
		if d.change == nil {
			d.change = make(chan struct{})
		}
		change := d.change
		d.mu.Unlock()
		if ok() { // asked after change was fetched, so that none is missed
			return true
		}
		if !r.cfg.Beside.Wait(ctx, change, end.Sub(r.now())) {
			return false
		}
	}
}
