package host

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/doppel-iot/doppel/actors/filter"
)

// tag is a key with a value.
type tag struct{ key, value string }

// posting is the places of the twins that have a tag: a list while they are few, else a bit for each
// place there is.
type posting struct {
	few  []uint32 // in order
	many bitset
	n    int
}

// fewMost is how many places a list may have: as many as fill the bits of so many places.
const fewMost = 1024

func (p *posting) has(place uint32) bool {
	if p.many != nil {
		return p.many.word(int(place/64))&(1<<(place%64)) != 0
	}
	_, found := slices.BinarySearch(p.few, place)
	return found
}

func (p *posting) set(place uint32, in bool) {
	if p.has(place) == in {
		return
	}
	if in {
		p.n++
	} else {
		p.n--
	}
	if p.many == nil && p.n > fewMost {
		for _, other := range p.few {
			p.many.set(other, true)
		}
		p.few = nil
	}
	switch i, _ := slices.BinarySearch(p.few, place); {
	case p.many != nil:
		p.many.set(place, in)
	case in:
		p.few = slices.Insert(p.few, i, place)
	default:
		p.few = slices.Delete(p.few, i, i+1)
	}
}

// next is the first place from one on; 0: there is none.
func (p *posting) next(from uint32) uint32 {
	if p.many == nil {
		if i, _ := slices.BinarySearch(p.few, from); i < len(p.few) {
			return p.few[i]
		}
		return 0
	}
	for i := int(from / 64); i < len(p.many); i++ {
		word := p.many[i]
		if i == int(from/64) {
			word &= ^uint64(0) << (from % 64)
		}
		if word != 0 {
			return uint32(64*i + bits.TrailingZeros64(word))
		}
	}
	return 0
}

// nobody has no places.
var nobody posting

// rarest is the posting of the tag among terms that the fewest twins have; false: none is of a tag.
func (r *roster) rarest(terms []filter.Term) (rare *posting, ok bool) {
	for _, t := range terms {
		if t.Kind != filter.Tagged {
			continue
		}
		p := r.tagged[tag{t.Key, t.Value}]
		if p == nil {
			return &nobody, true
		}
		if rare == nil || p.n < rare.n {
			rare = p
		}
	}
	return rare, rare != nil
}

func (r *roster) hasTags(place uint32, terms []filter.Term) bool {
	for _, t := range terms {
		if t.Kind == filter.Tagged && !r.tagged[tag{t.Key, t.Value}].has(place) {
			return false
		}
	}
	return true
}

// retag follows the tags of a hot twin.
func (r *roster) retag(c *cell) {
	if version := c.twin.TagsVersion(); version != c.tagsVersion {
		r.untag(c.place, c.tags)
		c.tags, c.tagsVersion = c.twin.Tags(), version
		r.tag(c.place, c.tags)
	}
}

func (r *roster) tag(place uint32, tags map[string]string) {
	for key, value := range tags {
		if r.tagged == nil {
			r.tagged = make(map[tag]*posting)
		}
		p := r.tagged[tag{key, value}]
		if p == nil {
			p = &posting{}
			r.tagged[tag{strings.Clone(key), strings.Clone(value)}] = p
		}
		p.set(place, true)
	}
}

func (r *roster) untag(place uint32, tags map[string]string) {
	for key, value := range tags {
		if p := r.tagged[tag{key, value}]; p != nil {
			if p.set(place, false); p.n == 0 {
				delete(r.tagged, tag{key, value})
			}
		}
	}
}
