package codec

import (
	"math"
	"unicode/utf8"

	"github.com/doppel-iot/doppel/actors/twin"
)

// fromMsgpack writes the map of that many members, whose syntax is known to be right.
func (p *patch) fromMsgpack(raw []byte, members int) ([]byte, *flaw) {
	start := len(p.out)
	p.pack.reset(raw)
	if f := p.packMap(members, 1); f != nil {
		p.drop(start)
		return nil, f
	}
	return p.taken(start), nil
}

func (p *patch) packMap(members, depth int) *flaw {
	if f := tooDeep(depth); f != nil {
		return f
	}
	object := p.open()
	for range members {
		k := p.pack.value()
		if k.kind != packString || !utf8.Valid(k.bytes) {
			return &flaw{twin.NotDecodable, "", "a name is a string in UTF-8, got " + k.kind.String()}
		}
		p.name(object, k.bytes)
		if f := p.packValue(depth + 1); f != nil {
			return f.in(k.bytes)
		}
		p.done()
	}
	return p.shut(object)
}

func (p *patch) packArray(elements, depth int) *flaw {
	if f := tooDeep(depth); f != nil {
		return f
	}
	p.out = append(p.out, '[')
	for i := range elements {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		if f := p.packValue(depth + 1); f != nil {
			return f.at(i)
		}
	}
	p.out = append(p.out, ']')
	return nil
}

func (p *patch) packValue(depth int) *flaw {
	switch v := p.pack.value(); v.kind {
	case packNil:
		p.out = append(p.out, "null"...)
	case packBool:
		p.bool(v.bits == 1)
	case packInt:
		p.integer(v.integer())
	case packFloat:
		return p.float(math.Float64frombits(v.bits))
	case packString:
		if !utf8.Valid(v.bytes) {
			return &flaw{twin.NotDecodable, "", "the string is not UTF-8"}
		}
		p.string(v.bytes)
	case packMap:
		return p.packMap(v.len, depth)
	case packArray:
		return p.packArray(v.len, depth)
	case packNone, packBinary, packExt:
		return &flaw{twin.NotDecodable, "", v.kind.String() + " has no JSON form"}
	}
	return nil
}
