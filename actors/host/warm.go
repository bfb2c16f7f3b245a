package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
)

const (
	// followEvery is how often what was read ahead follows the log.
	followEvery = time.Second
	// keepWarm is how long it does without Own.
	keepWarm = time.Minute
)

// errCold: what was read ahead does not fit what is there now.
var errCold = errors.New("host: not the beginning of this restore")

// warmth is a restore begun before its claim. It belongs to its partition, and to whoever holds mu.
type warmth struct {
	p      *partition
	ctx    context.Context //nolint:containedctx // as long as it is wanted; the steps that follow the log have no other
	cancel context.CancelFunc

	mu sync.Mutex
	r  *restoration
}

// Warm prepares to own partition p while another node serves it: it reads the checkpoints and folds the
// log up to about its end, and goes on following the log for a minute, so that Own has the rest to read
// only. It returns when it has caught up; an error costs nothing but time. Where p is owned already it does
// nothing; Own, Release and Drop end it.
func (h *Host) Warm(ctx context.Context, p int32) error {
	w := h.parts[p].warmUp()
	if w == nil {
		return nil
	}
	defer context.AfterFunc(ctx, w.cancel)()
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.r == nil
	if first {
		o := newOwner(w.p)
		w.r = newRestoration(o)
		w.r.ahead = &lead{touched: make(map[*cell]int64), later: make(map[string]origin)}
	}
	if err := w.advance(); err != nil {
		w.r = nil
		h.parts[p].coolDown(w)
		return fmt.Errorf("warm p%d: %w", p, err)
	}
	if first {
		h.after(followEvery, func() { w.follow(h.cfg.Clock() + int64(keepWarm)) })
	}
	return nil
}

// advance reads up to about the end of the log; mu is held.
func (w *warmth) advance() error {
	r, clock := w.r, w.p.host.cfg.Clock
	for begin, rounds := clock(), 0; ; rounds++ {
		var end int64
		var err error
		if r.ahead.planned {
			_, end, err = w.p.host.cfg.Changelog.Bounds(w.ctx, w.p.id)
		} else {
			end, err = r.lookAhead(w.ctx)
		}
		if err != nil {
			return err
		}
		if err := r.fold(w.ctx, end); err != nil {
			return err
		}
		now := clock()
		if now-begin < int64(followEvery) || rounds == 8 { // faster than this it is not followed either
			return nil
		}
		begin = now
	}
}

// follow goes on for as long as anybody may want it.
func (w *warmth) follow(until int64) {
	h := w.p.host
	h.cfg.Beside.Go(func() {
		if w.ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.r == nil || w.ctx.Err() != nil {
			return
		}
		err := w.advance()
		if w.ctx.Err() != nil { // taken, or not wanted any more; what is there is the fold of a prefix
			return
		}
		if err != nil || h.cfg.Clock() > until {
			w.r = nil
			w.p.coolDown(w)
			return
		}
		h.after(followEvery, func() { w.follow(until) })
	})
}

// warmUp is the partition's warmth, nil if it is owned.
func (p *partition) warmUp() *warmth {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenure != nil && (!p.tenure.leaving || p.again) {
		return nil
	}
	if p.warm == nil {
		p.warm = &warmth{p: p}
		p.warm.ctx, p.warm.cancel = context.WithCancel(context.Background())
	}
	return p.warm
}

// coolDown forgets w, or whatever there is.
func (p *partition) coolDown(w *warmth) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.warm != nil && (w == nil || p.warm == w) {
		p.warm.cancel()
		p.warm = nil
	}
}

// takeWarm is what was read ahead of the claim, nil: nothing.
func (p *partition) takeWarm() *restoration {
	p.mu.Lock()
	w := p.warm
	p.warm = nil
	p.mu.Unlock()
	if w == nil {
		return nil
	}
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.r
	if w.r = nil; r == nil || !r.ahead.planned {
		return nil
	}
	return r
}

// lead is what a restore that begins before its claim has to remember until doppel.state is read to its
// end (S1): the twins are right whatever is written there meanwhile, but which of them are dirty is not known.
type lead struct {
	planned bool              // what follows of doppel.state is not read for its twins
	touched map[*cell]int64   // with the offset of the last record applied
	later   map[string]origin // newest checkpoint of those written after plan
}

// lookAhead reads the checkpoints without a claim, and returns the end of the log.
func (r *restoration) lookAhead(ctx context.Context) (end int64, err error) {
	_, start, end, err := r.readState(ctx)
	if err != nil {
		return 0, err
	}
	r.plan(start)
	r.ahead.planned = true
	if r.valid.Next < start {
		return 0, fmt.Errorf("the log starts at %d, the fold must at %d: %w", start, r.valid.Next, errCold)
	}
	return end, nil
}

// knows notes a checkpoint of a twin that is there already. One of another twin is all that is left of it:
// compaction took an older one away before it was read.
func (l *lead) knows(o *owner, key []byte, from origin) bool {
	if !l.planned || o.twins[string(key)] == nil && o.idle.passive[string(key)] == nil {
		return false
	}
	l.later[string(key)] = from
	return true
}

// lacks says that a record needs a twin whose checkpoint was not found.
func (l *lead) lacks(o *owner, key []byte, ev *codec.Event) bool {
	return ev.Version != 1 && o.twins[string(key)] == nil && o.idle.passive[string(key)] == nil
}

// settle finds out which twins are dirty, now that doppel.state is read to the end: those with a change that
// their newest checkpoint there does not include, whoever wrote it (C2). It also drops the effects that
// a newer floor knows to be out.
func (r *restoration) settle() {
	o, l, k := r.o, r.ahead, &r.o.ckpt
	clean, since := make(map[*cell]bool), make(map[*cell]Cursor)
	for _, id := range slices.Sorted(maps.Keys(l.later)) {
		from, c := l.later[id], o.twins[id]
		if c == nil {
			if p := o.idle.passive[id]; from.asof < p.asof { // an old one came late
				since[o.find(strings.Clone(id))] = from.cursor
			}
			continue
		}
		last, touched := l.touched[c]
		if !touched {
			last = r.covered[id]
		}
		if from.asof >= last {
			clean[c] = true
		} else {
			since[c] = from.cursor
		}
	}
	var dirty []dirtyTwin
	for ; k.dirty.len() > 0; k.dirty.pop() {
		d := *k.dirty.front()
		if clean[d.cell] {
			d.cell.dirty = false
			continue
		}
		if s, ok := since[d.cell]; ok {
			d.since = s
			delete(since, d.cell)
		}
		dirty = append(dirty, d)
	}
	for c, s := range since {
		c.dirty = true
		dirty = append(dirty, dirtyTwin{cell: c, since: s})
	}
	slices.SortFunc(dirty, func(a, b dirtyTwin) int {
		return cmp.Or(cmp.Compare(a.since.Next, b.since.Next), cmp.Compare(a.cell.id(), b.cell.id()))
	})
	for _, d := range dirty {
		*k.dirty.push() = d
	}
	r.emit = slices.DeleteFunc(r.emit, func(e lateEffects) bool { return e.at.Next < r.floor.EffectsNext })
}

// adoptBy gives what was read ahead to the owner whose claim it is now.
func (r *restoration) adoptBy(o *owner) {
	from := r.o
	o.twins, o.idle, o.alerts, o.twinsOn, o.dec, o.ckpt = from.twins, from.idle, from.alerts, from.twinsOn, from.dec, from.ckpt
	o.src, o.now, o.rules, o.named, o.laws = from.src, from.now, from.rules, from.named, from.laws
	r.o = o
}
