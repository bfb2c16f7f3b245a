package host

import (
	"context"
	"time"
)

// readPatience is how long a read waits for a log that does not answer. Then it is answered with what is in
// memory, and said to be stale.
const readPatience = int64(time.Second)

// reading is a query that rather has an old answer than none.
type reading struct {
	read func(*owner) uint64 // the newest record it saw
	done chan shownAs
	at   int64 // when it came
	over bool
}

// shownAs is how the answer of a read was made.
type shownAs struct {
	stale bool
	err   error
}

func (r *reading) answer(stale bool, err error) {
	if !r.over {
		r.over = true
		r.done <- shownAs{stale, err}
	}
}

// readInPlace runs read on the caller's goroutine, if nobody is taking a turn and the owner could answer at
// once, and says whether all that it saw is released. It saves the two wake-ups of a turn, which cost more than
// most reads. Where it says no, what read gathered is of no use.
func (p *partition) readInPlace(read func(*owner) uint64) bool {
	if !p.turn.TryLock() {
		return false
	}
	defer p.turn.Unlock()
	o := p.serving
	if o == nil || o.stopped != nil {
		return false
	}
	now := max(p.host.cfg.Clock(), o.now) // the last turn may be long ago, if the process was stopped
	if now-o.vigil.verified > verifyEvery || o.silent(now) {
		return false
	}
	return read(o) <= o.released
}

// show runs read on the goroutine of partition p, or in its place, like ask: where the last look at the log is too old, it looks
// first (O7), and what it saw is released when it returns. But it does not wait for a log that does not
// answer: the answer is stale then.
func (h *Host) show(ctx context.Context, p int32, read func(*owner) uint64) (stale bool, err error) {
	if !h.parts[p].view.Load().answers() {
		return false, ErrUnavailable
	}
	if h.parts[p].readInPlace(read) {
		return false, nil
	}
	r := &reading{read: read, done: make(chan shownAs, 1)}
	h.parts[p].box.call(func(o *owner) {
		switch {
		case o == nil || !o.served:
			r.answer(false, ErrUnavailable)
		case o.silent(o.now):
			read(o)
			r.answer(true, nil)
		case o.now-o.vigil.verified > verifyEvery:
			r.at = o.now
			o.vigil.reads = append(o.vigil.reads, r)
		default:
			o.serveRead(r)
		}
	})
	select {
	case as := <-r.done:
		return as.stale, as.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// serveRead answers r with the release of what it sees.
func (o *owner) serveRead(r *reading) {
	n := r.read(o)
	if n <= o.released {
		r.answer(false, nil)
		return
	}
	*o.pend.push() = pending{n: o.n, fn: func() {
		if o.released < n { // the epoch ended first
			r.answer(false, ErrUnavailable)
			return
		}
		r.answer(false, nil)
	}}
	o.vigil.waiting = append(o.vigil.waiting, r)
}

// silent says that the log does not answer: neither our last question nor the oldest of our records.
func (o *owner) silent(now int64) bool {
	v := &o.vigil
	if v.mute || v.asked != 0 && now-v.asked > readPatience {
		return true
	}
	return o.chunks.len() > 0 && now-max(o.chunks.front().at, v.verified) > readPatience
}

// answerReads answers the reads that have waited for the log, whether it said something or not.
func (o *owner) answerReads() {
	v := &o.vigil
	if len(v.reads)+len(v.waiting) == 0 || len(v.reads) == 0 && o.now-v.swept < wheelTick {
		return
	}
	v.swept = o.now
	silent, fresh := o.silent(o.now), o.now-v.verified <= verifyEvery
	left := v.reads[:0]
	for _, r := range v.reads {
		switch {
		case fresh:
			o.serveRead(r)
		case silent || o.now-r.at > readPatience:
			r.read(o)
			r.answer(true, nil)
		default:
			left = append(left, r)
		}
	}
	clear(v.reads[len(left):])
	v.reads = left
	waiting := v.waiting[:0]
	for _, r := range v.waiting {
		if silent { // it saw what the log may still refuse
			r.answer(true, nil)
		}
		if !r.over {
			waiting = append(waiting, r)
		}
	}
	clear(v.waiting[len(waiting):])
	v.waiting = waiting
}

// refuseReads answers the reads of an epoch that is over.
func (o *owner) refuseReads() {
	for _, r := range o.vigil.reads {
		r.answer(false, ErrUnavailable)
	}
	o.vigil.reads = nil
}
