package codec

import "github.com/doppel-iot/doppel/actors/twin"

// fromJSON writes a value whose syntax is known to be right, and which is an object.
func (p *patch) fromJSON(raw []byte) ([]byte, *flaw) {
	start := len(p.out)
	p.scan.reset(raw)
	if f := p.jsonValue(1); f != nil {
		p.drop(start)
		return nil, f
	}
	return p.taken(start), nil
}

// jsonValue copies the next value; depth is its own, if it is an object or array.
func (p *patch) jsonValue(depth int) *flaw {
	s := &p.scan
	switch c := s.peek(); c {
	case '{':
		return p.jsonObject(depth)
	case '[':
		return p.jsonArray(depth)
	case '"':
		p.string(s.str())
	case 't', 'f', 'n':
		p.out = append(p.out, s.skip()...)
	default:
		n := s.number()
		if !n.fraction && !n.overflow {
			p.integer(n.integer)
			return nil
		}
		if f := p.float(n.float()); f != nil {
			return &flaw{twin.NotFinite, "", n.text() + " is not a finite number"}
		}
	}
	return nil
}

func (p *patch) jsonObject(depth int) *flaw {
	if f := tooDeep(depth); f != nil {
		return f
	}
	s := &p.scan
	s.i++
	object := p.open()
	for first := true; ; first = false {
		key, more := s.key(first)
		if !more {
			return p.shut(object)
		}
		p.name(object, key)
		m := p.members[len(p.members)-1]
		if f := p.jsonValue(depth + 1); f != nil {
			return f.in(p.names[m.name:m.nameEnd])
		}
		p.done()
	}
}

func (p *patch) jsonArray(depth int) *flaw {
	if f := tooDeep(depth); f != nil {
		return f
	}
	s := &p.scan
	s.i++
	p.out = append(p.out, '[')
	for i := 0; s.element(i == 0); i++ {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		if f := p.jsonValue(depth + 1); f != nil {
			return f.at(i)
		}
	}
	p.out = append(p.out, ']')
	return nil
}
