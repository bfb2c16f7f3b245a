package host

import (
	"maps"
	"slices"
)

// rewrite is a pass over all twins of a partition that gives each a new checkpoint, so that what
// stands before it in doppel.state can be removed. It is for logs that do not compact by themselves.
type rewrite struct {
	below int64    // offset of doppel.state at which the pass began
	left  []string // devices still to do
	busy  bool     // a pass is under way
	taken bool     // all are on their way, or there: a floor behind them ends the pass
	done  int64    // below which nothing is needed
}

// Rewriting begins when doppel.state has so many records for each twin, and so many anyway.
const (
	rewriteFactor = 4
	rewriteLeast  = 4096
)

// end is called with the acknowledged floor behind all that the pass has written.
func (r *rewrite) end() {
	r.done, r.busy, r.taken = r.below, false, false
}

// spare keeps all that is there: a twin has its last state in it.
func (r *rewrite) spare() { r.below = r.done }

// rewrite goes on with the pass, or begins one. It goes before the checkpoints that are due: where these
// cost all they may, nothing would be left for it, and what it writes spares theirs.
func (o *owner) rewrite() {
	k, r := &o.ckpt, &o.ckpt.pass
	if o.host.cfg.Retention == nil || r.taken {
		return
	}
	if !r.busy {
		if k.prev+1-r.done < int64(rewriteFactor*(len(o.twins)+len(o.idle.passive))+rewriteLeast) {
			return
		}
		r.busy, r.below = true, k.prev+1
		r.left = slices.AppendSeq(slices.Collect(maps.Keys(o.twins)), maps.Keys(o.idle.passive))
	}
	for k.credit >= 1 && len(r.left) > 0 && k.flying.len() < maxFlying {
		k.credit--
		last := len(r.left) - 1
		o.rewriteTwin(r.left[last])
		r.left[last] = ""
		r.left = r.left[:last]
	}
	r.taken = len(r.left) == 0
}

// rewriteTwin takes a twin whether it is dirty or not. The floor must not start behind what waits
// already, and flying is in order of that, so it counts as changed where the floor would start now.
func (o *owner) rewriteTwin(id string) {
	since := o.floorStart()
	k := &o.ckpt
	if c := o.twins[id]; c != nil {
		if !c.broken {
			o.takeTwin(c, since)
		}
		if c.broken { // perhaps only now
			k.pass.spare()
		}
		return
	}
	p := o.idle.passive[id]
	if p == nil || !o.decode(&o.idle.read, id, p) {
		k.pass.spare()
		return
	}
	from := k.room()
	k.slab = o.idle.read.EncodeCheckpoint(k.slab)
	*k.flying.push() = stateRecord{after: o.n, since: since, id: p.id(), twin: k.slab[from:len(k.slab):len(k.slab)]}
	o.sendState()
}
