package host

import (
	"math/bits"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/twin"
)

// roster numbers the twins of a partition, so that queries can go through them a few at a time and
// indexes can be sets of numbers. A twin keeps its place when it is passivated and when it wakes again:
// a walk over the places meets every twin that is there throughout, once.
//
// It is made when the owner begins to serve, and follows what is recorded, released or not, as the hot
// twins do; whoever reads it waits for the release of what it saw.
type roster struct {
	slots    []slot   // by place; 0 is nobody's
	free     []uint32 // places of twins that are gone
	used     bitset
	online   bitset
	alerting bitset
	tagged   map[tag]*posting
}

// slot is a twin in one of its two forms; neither: there is none.
type slot struct {
	hot  *cell
	rest *passive
}

// bitset is a set of places.
type bitset []uint64

func (s *bitset) set(place uint32, in bool) {
	word, bit := int(place/64), uint64(1)<<(place%64)
	for word >= len(*s) {
		if !in {
			return
		}
		*s = append(*s, 0)
	}
	if in {
		(*s)[word] |= bit
	} else {
		(*s)[word] &^= bit
	}
}

func (s bitset) word(i int) uint64 {
	if i >= len(s) {
		return 0
	}
	return s[i]
}

func (r *roster) place() uint32 {
	if n := len(r.free); n > 0 {
		place := r.free[n-1]
		r.free = r.free[:n-1]
		return place
	}
	if len(r.slots) == 0 {
		r.slots = append(r.slots, slot{})
	}
	r.slots = append(r.slots, slot{})
	return uint32(len(r.slots) - 1)
}

// enter gives c a place, or its place to c, which was passive there.
func (r *roster) enter(c *cell) {
	if c.place == 0 {
		c.place = r.place()
	}
	r.slots[c.place] = slot{hot: c}
	c.tags, c.tagsVersion = nil, 0
	r.index(c.place, &c.twin)
	r.retag(c)
}

// enterPassive gives p a place; t is what it encodes, nil if that cannot be read.
func (r *roster) enterPassive(p *passive, t *twin.Twin) {
	p.place = r.place()
	r.slots[p.place] = slot{rest: p}
	r.index(p.place, t)
	if t != nil {
		r.tag(p.place, t.Tags())
	}
}

// rests notes that c is p now.
func (r *roster) rests(c *cell, p *passive) {
	p.place = c.place
	r.slots[p.place] = slot{rest: p}
}

// leaves notes that c is gone for good.
func (r *roster) leaves(c *cell) {
	if c.place == 0 {
		return
	}
	r.slots[c.place] = slot{}
	for _, s := range []*bitset{&r.used, &r.online, &r.alerting} {
		s.set(c.place, false)
	}
	r.untag(c.place, c.tags)
	r.free = append(r.free, c.place)
	c.place, c.tags, c.tagsVersion = 0, nil, 0
}

func (r *roster) index(place uint32, t *twin.Twin) {
	r.used.set(place, t == nil || !t.Deleted())
	r.online.set(place, t != nil && t.Online())
	r.alerting.set(place, t != nil && t.OpenCount() > 0)
}

// indexed are the kinds of terms that a roster answers.
var indexed = []filter.TermKind{filter.Online, filter.Alerting, filter.Tagged}

// next is the first place from one on whose twin has all terms; 0: there is none.
func (r *roster) next(from uint32, terms []filter.Term) uint32 {
	if rare, ok := r.rarest(terms); ok {
		for place := rare.next(from); place != 0; place = rare.next(place + 1) {
			if r.has(int(place/64), terms)&(1<<(place%64)) != 0 && r.hasTags(place, terms) {
				return place
			}
		}
		return 0
	}
	for i := int(from / 64); i < len(r.used); i++ {
		word := r.has(i, terms)
		if i == int(from/64) {
			word &= ^uint64(0) << (from % 64)
		}
		if word != 0 {
			return uint32(64*i + bits.TrailingZeros64(word))
		}
	}
	return 0
}

// has are the places, 64 of them from 64*i on, of twins that have all terms but those of tags.
func (r *roster) has(i int, terms []filter.Term) uint64 {
	word := r.used.word(i)
	for _, t := range terms {
		var set bitset
		switch t.Kind {
		case filter.Online:
			set = r.online
		case filter.Alerting:
			set = r.alerting
		case filter.Tagged:
			continue
		}
		if t.Want {
			word &= set.word(i)
		} else {
			word &^= set.word(i)
		}
	}
	return word
}
