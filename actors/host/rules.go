package host

import (
	"context"
	"maps"
	"slices"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Which rules are in force in a partition is decided by its log alone, so that a fold of it gives what was
// live: a Claim puts the built-in rules in force, a rules record what it carries, each for all that is behind
// it until the next. An owner's first record therefore names the rules of its epoch, unless they are the built-in ones.

// law is a rule set and the record that put it in force.
type law struct {
	from int64 // its offset
	set  *ruleset.Set
	// brief: of a Claim whose first record named other rules. It says nothing of what was in force before.
	brief bool
}

// laws are those of a partition in the order of the log, as far back as they are known.
type laws []law

// mostLaws is how many are remembered besides those that a floor needs: what is folded from before them has to find
// its own.
const mostLaws = 256

// enact enters a law; needed is an offset whose law must not be forgotten.
func (l *laws) enact(from int64, set *ruleset.Set, needed int64) {
	drop := 0
	for len(*l)-drop >= mostLaws && (*l)[drop+1].from < needed {
		drop++
	}
	*l = append(slices.Delete(*l, 0, drop), law{from: from, set: set})
}

// supersede notes that an epoch's first record names its rules.
func (l laws) supersede() {
	if len(l) > 0 {
		l[len(l)-1].brief = true
	}
}

// at is the law for the record at an offset; false: it is not known.
func (l laws) at(offset int64) (law, bool) {
	for _, one := range slices.Backward(l) {
		if one.from < offset {
			return one, true
		}
	}
	// Offsets in doppel.rules only grow along the log: where none had been read, none was before.
	if len(l) > 0 && l[0].set.Offset == 0 && !l[0].brief {
		return law{from: -1, set: l[0].set}, true
	}
	return law{}, false
}

// SetRules has every partition go over to a rule set, each with a record of its own, unless it follows a newer
// one already (O8). It returns before that has happened, but what is delivered from then on meets these rules.
func (h *Host) SetRules(s *ruleset.Set) {
	for {
		had := h.ordered.Load()
		if had != nil && had.Offset >= s.Offset {
			return
		}
		if h.ordered.CompareAndSwap(had, s) {
			break
		}
	}
	for _, p := range h.parts {
		p.box.signal()
	}
}

// Compiler is what compiles the rules of this host, so that others share what it has compiled.
func (h *Host) Compiler() *ruleset.Compiler { return h.compiler }

// compile makes a set of what a record carries; nothing: the built-in one.
func (h *Host) compile(encoded []byte) *ruleset.Set {
	if len(encoded) == 0 {
		return h.base
	}
	return h.compiler.Compile(encoded)
}

// enact puts a set in force behind a record of the log, in a restore.
func (o *owner) enact(from int64, set *ruleset.Set) {
	if o.rules = set; set.Offset > 0 {
		o.named = set
	}
	o.remember(from, set)
}

// remember keeps the laws that any floor there is, or will be, has to name.
func (o *owner) remember(from int64, set *ruleset.Set) {
	o.laws.enact(from, set, min(o.ckpt.floor.kept.Start.Next, o.floorStart().Next))
}

// layDown logs the rules of this epoch: those that were in force, or newer ones. Not those behind the last Claim: who
// made that may not have lived to name any.
func (o *owner) layDown() {
	set := o.named
	o.enact(int64(o.epoch), o.host.base)
	if newer := o.host.ordered.Load(); newer != nil && newer.Offset > set.Offset {
		set = newer
	}
	if set.Offset > 0 {
		o.changeRules(set) // an owner before us may not have lived to review all twins
	}
}

// followRules goes over to newer rules.
func (o *owner) followRules() {
	if set := o.host.ordered.Load(); set != nil && set.Offset > o.rules.Offset {
		o.changeRules(set)
	}
}

// changeRules logs a set: a record without a key, as a Claim is.
func (o *owner) changeRules(set *ruleset.Set) {
	for _, err := range set.Skipped {
		o.log.Error("rule cannot be run by this build and is left out", "err", err)
	}
	o.n++
	n := o.n
	value := codec.AppendEvent(nil, &codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_RULES, Epoch: o.epoch, N: n, Now: o.now, Rules: set.Encoded})
	o.out.bytes += len(value)
	o.out.recs = append(o.out.recs, Record{N: n, Value: value})
	*o.pend.push() = pending{n: n, fn: func() {
		if o.released >= n { // else the epoch ended first
			if n == 1 {
				o.laws.supersede()
			}
			o.remember(o.prev, set)
		}
	}}
	o.rules, o.named = set, set
	o.review = o.toReview()
	o.log.Debug("rules changed", "rules_offset", set.Offset)
}

// reviewAtOnce is how many twins are looked at in a turn: about a millisecond.
const reviewAtOnce = 512

// toReview are the ids of all twins: those with alerts first, whose people wait for what a silence does.
func (o *owner) toReview() []string {
	ids := slices.Sorted(maps.Keys(o.alerts.byDevice))
	rest := make([]string, 0, len(o.twins)+len(o.idle.passive))
	for id := range o.twins {
		rest = append(rest, id)
	}
	for id := range o.idle.passive {
		rest = append(rest, id)
	}
	slices.Sort(rest) // in an order that a seed decides
	return append(ids, rest...)
}

// reviewSome logs a review of the twins that the rules concern although nothing is heard of them.
func (o *owner) reviewSome() {
	for range reviewAtOnce {
		if len(o.review) == 0 {
			o.review = nil
			return
		}
		if o.full() {
			return
		}
		id := o.review[0]
		o.review = o.review[1:]
		c := o.twins[id]
		if c == nil {
			p := o.idle.passive[id]
			if p == nil || !o.decode(&o.idle.read, id, p) || !o.idle.read.Concerned(o.rules.Alerts, o.now) {
				continue
			}
			c = o.activate(p)
		}
		if !c.quarantined && c.twin.Concerned(o.rules.Alerts, o.now) {
			o.due(c, twin.Input{Kind: twin.KindReviewed, ReceivedAt: o.now})
		}
	}
	o.p.box.signal()
}

// rulesAt is the rule set in force for the record at an offset of partition p; nil: it is not known.
func (h *Host) rulesAt(ctx context.Context, p int32, offset int64) (*ruleset.Set, error) {
	var set *ruleset.Set
	err := h.ask(ctx, p, func(o *owner) uint64 {
		if l, ok := o.laws.at(offset); ok {
			set = l.set
		}
		return 0
	})
	if err != nil {
		return nil, err // set may be being written still
	}
	return set, nil
}
