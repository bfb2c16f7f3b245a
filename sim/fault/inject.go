package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// injector carries a schedule out. Faults run beside each other; those of one subject one after another.
type injector struct {
	rig *Rig
	out io.Writer

	mu   sync.Mutex // guards out and errs
	errs []error
}

// happening is a fault that happened.
type happening struct {
	fault    Fault
	from, to time.Time
	back     time.Time // when a process that had ended was started again; zero: none had
}

func (r *Rig) note(h happening) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.happened = append(r.happened, h)
}

// Inject lets the faults happen, each at its time from now on, and returns when all are over and everything
// runs again. Its error is what a process did that no fault excuses.
func (r *Rig) Inject(ctx context.Context, faults []Fault, out io.Writer) error {
	in := &injector{rig: r, out: out}
	start := time.Now()
	var all sync.WaitGroup
	for _, f := range faults {
		sleep(ctx, f.At-time.Since(start))
		if ctx.Err() != nil {
			break
		}
		all.Go(func() { in.one(ctx, f) })
	}
	all.Wait()
	return errors.Join(append(in.errs, ctx.Err())...)
}

func (in *injector) one(ctx context.Context, f Fault) {
	in.say("  %s", f)
	h := happening{fault: f, from: time.Now()}
	defer func() {
		h.to = time.Now()
		in.rig.note(h)
	}()
	var err error
	if p := in.rig.processes[f.Subject]; p != nil {
		h.back, err = in.process(ctx, p, f)
	} else if l := in.rig.links[f.Subject]; l != nil {
		l.strike(ctx, f)
	} else if c := in.rig.cables[f.Subject]; c != nil {
		err = c.strike(ctx, f)
	} else if f.Subject == Cluster && len(in.rig.nodes) > 1 {
		err = in.cluster(ctx, f)
	} else {
		err = fmt.Errorf("this rig has no %s", f.Subject)
	}
	if err != nil {
		in.say("  %s: %v", f, err)
		in.mu.Lock()
		defer in.mu.Unlock()
		in.errs = append(in.errs, fmt.Errorf("%s: %w", f, err))
	}
}

func (in *injector) say(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Fprintf(in.out, format+"\n", args...)
}

// process lets a fault happen to a process; back is when it was started again.
func (in *injector) process(ctx context.Context, p *process, f Fault) (back time.Time, err error) {
	p.fault.Lock()
	defer p.fault.Unlock()
	if p.pid() == 0 {
		// It ended by itself, which the node's complaints tell; the fault needs a victim.
		if err := p.run(ctx); err != nil {
			return back, err
		}
	}
	var ended error
	switch f.Kind {
	case Pause:
		p.pause(ctx, f.For)
		return back, nil
	case Kill, Terminate:
		in.doom(f.Subject)
		if ended = p.end(f.Kind); ctx.Err() != nil {
			return back, ended
		}
	default:
		return back, fmt.Errorf("%s does not happen to processes", f.Kind)
	}
	sleep(ctx, f.For)
	back = time.Now()
	return back, errors.Join(ended, p.run(ctx))
}

// doom notes that a node is about to be ended; others need no such note.
func (in *injector) doom(s Subject) {
	for _, n := range in.rig.nodes {
		if n.name == s {
			n.doom()
		}
	}
}

// end kills it or asks it to end.
func (p *process) end(k Kind) error {
	if k == Kill {
		return p.kill()
	}
	return p.terminate()
}

// hitLimit is how long produce requests are waited for: none come while nothing works.
const hitLimit = 20 * time.Second

// strike lets a fault happen to the link, and heals it.
func (l *link) strike(ctx context.Context, f Fault) {
	l.fault.Lock()
	defer l.fault.Unlock()
	switch f.Kind {
	case Cut:
		l.Cut()
	case Stall, StallUp, StallDown:
		l.Stall(f.Kind != StallDown, f.Kind != StallUp)
	case Unanswered, Torn:
		before := l.Hits()
		l.Hit(f.Kind, f.Requests)
		await(ctx, hitLimit, func() bool { return l.Hits()-before >= f.Requests })
		l.Hit(f.Kind, 0)
	default:
	}
	sleep(ctx, f.For)
	l.Heal()
}
