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
	floor bool     // all are sent; the next acknowledged floor ends the pass
	done  int64    // below which nothing is needed
}

// Rewriting begins when doppel.state has so many records for each twin, and so many anyway.
const (
	rewriteFactor = 4
	rewriteLeast  = 4096
)

// over says that everything is sent and a floor is wanted.
func (r *rewrite) over() bool { return r.floor }

// ended is called with an acknowledged floor and returns the offset below which nothing is needed.
func (r *rewrite) ended() int64 {
	if r.floor {
		r.done, r.busy, r.floor = r.below, false, false
	}
	return r.done
}

// rewrite goes on with the pass, or begins one.
func (o *owner) rewrite() {
	k, r := &o.ckpt, &o.ckpt.pass
	if o.host.cfg.Retention == nil || r.floor {
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
	r.floor = len(r.left) == 0 && k.flying.len() == 0
}

// rewriteTwin takes a twin whether it is dirty or not. The floor must not start behind what waits
// already, and flying is in order of that, so it counts as changed where the floor would start now.
func (o *owner) rewriteTwin(id string) {
	since := o.floorStart()
	if c := o.twins[id]; c != nil {
		if !c.broken {
			o.takeTwin(c, since)
		}
		return
	}
	p := o.idle.passive[id]
	if p == nil || !o.decode(&o.idle.read, id, p) {
		return
	}
	k := &o.ckpt
	from := k.room()
	k.slab = o.idle.read.EncodeCheckpoint(k.slab)
	*k.flying.push() = stateRecord{after: o.n, since: since, id: p.id(), twin: k.slab[from:len(k.slab):len(k.slab)]}
	o.sendState()
}
