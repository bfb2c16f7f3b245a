package codec

import "github.com/doppel-iot/doppel/actors/twin"

// json decodes a message in JSON. Members it does not know are skipped.
func (d *Decoder) json(payload []byte) *Refusal {
	s := &d.scan
	s.reset(payload)
	if s.peek() != '{' {
		return d.jsonNoObject()
	}
	s.i++
	d.begin(-1)
	for first := true; ; first = false {
		key, more := s.key(first)
		if !more {
			break
		}
		if r := d.jsonMember(key); r != nil && s.problem == "" {
			return r
		}
	}
	if r := s.close(); r != nil {
		return r
	}
	if !d.batch {
		d.end()
	}
	return nil
}

// jsonNoObject refuses a document that is something else.
func (d *Decoder) jsonNoObject() *Refusal {
	kind := d.scan.kind()
	if d.scan.skip(); d.scan.problem != "" {
		return refuse(twin.NotDecodable, "not JSON: %s", d.scan.problem)
	}
	return refuse(twin.NotDecodable, "a message is a JSON object, got %s", kind)
}

// jsonMember reads a member of the message itself.
func (d *Decoder) jsonMember(key []byte) *Refusal {
	f := fieldNamed(key)
	switch f {
	case 0:
		d.scan.skip()
		return nil
	case fieldBoot:
		if d.hasBoot {
			return refuse(twin.NotDecodable, "boot: appears twice")
		}
		n, given, kind := d.jsonInteger()
		if kind != "" {
			return refuse(twin.NotDecodable, "boot: expected an integer, got %s", kind)
		}
		if !given {
			return nil
		}
		return d.setBoot(n)
	case fieldSamples:
		return d.jsonSamples()
	default: // of a sample
	}
	if d.jsonNull() {
		return nil
	}
	if d.batch {
		return mixed(f)
	}
	d.jsonField(f)
	return nil
}

// fieldNamed is the member with that name, 0 if there is none.
func fieldNamed(key []byte) field {
	switch string(key) {
	case "boot":
		return fieldBoot
	case "seq":
		return fieldSeq
	case "time":
		return fieldTime
	case "metrics":
		return fieldMetrics
	case "reported":
		return fieldReported
	case "samples":
		return fieldSamples
	}
	return 0
}

func (d *Decoder) jsonSamples() *Refusal {
	s := &d.scan
	if d.jsonNull() {
		return nil
	}
	if d.batch {
		return refuse(twin.NotDecodable, "samples: appears twice")
	}
	if d.draft.seen != 0 {
		return mixed(d.draft.seen & -d.draft.seen)
	}
	if kind := s.kind(); kind != "an array" {
		s.skip()
		return refuse(twin.NotDecodable, "samples: expected an array, got %s", kind)
	}
	d.batch = true
	s.i++
	for first := true; s.element(first); first = false {
		if len(d.items) == MaxSamples {
			return refuse(twin.TooManySamples, "samples: more than %d in a message", MaxSamples)
		}
		d.begin(len(d.items))
		d.jsonSample()
		d.end()
	}
	return nil
}

// jsonSample reads one element of samples.
func (d *Decoder) jsonSample() {
	s := &d.scan
	if kind := s.kind(); kind != "an object" {
		d.refuse(twin.NotDecodable, "", "expected an object, got %s", kind)
		s.skip()
		return
	}
	s.i++
	for first := true; ; first = false {
		key, more := s.key(first)
		if !more {
			return
		}
		switch f := fieldNamed(key); {
		case f == 0 || d.jsonNull():
			s.skip()
		case f == fieldBoot || f == fieldSamples:
			d.misplaced(f)
			s.skip()
		default:
			d.jsonField(f)
		}
	}
}

// jsonField reads a member of a sample; it is not null.
func (d *Decoder) jsonField(f field) {
	s := &d.scan
	if !d.once(f) {
		s.skip()
		return
	}
	switch f {
	case fieldSeq:
		if n, _, kind := d.jsonInteger(); kind != "" {
			d.refuse(twin.NotDecodable, "seq", "expected an integer, got %s", kind)
		} else {
			d.setSeq(n)
		}
	case fieldTime:
		d.jsonTime()
	case fieldMetrics:
		d.jsonMetrics()
	case fieldReported:
		d.jsonReported()
	default:
		s.skip()
	}
}

// jsonNull reads null, which stands for an absent member, if it is next.
func (d *Decoder) jsonNull() bool {
	if d.scan.next() != 'n' {
		return false
	}
	d.scan.word("null")
	return true
}

// jsonInteger reads an integer, also one in a string, as protojson writes those of 64 bits. kind is
// what stands there instead.
func (d *Decoder) jsonInteger() (n integer, given bool, kind string) {
	s := &d.scan
	switch c := s.next(); {
	case c == '-' || c >= '0' && c <= '9':
		return s.number().integer, true, ""
	case c == 'n':
		s.word("null")
		return n, false, ""
	case c == '"':
		if n, ok := digits(s.str()); ok {
			return n, true, ""
		}
		return n, false, "a string"
	}
	kind = s.kind()
	s.skip()
	return n, false, kind
}

func (d *Decoder) jsonTime() {
	s := &d.scan
	switch c := s.next(); {
	case c == '"':
		if text := s.str(); s.problem == "" {
			d.setTimeText(text)
		}
	case c == '-' || c >= '0' && c <= '9':
		d.setTime(s.number().integer)
	default:
		d.refuse(twin.NotDecodable, "time", "expected a string or an integer, got %s; %s", s.kind(), timeForms)
		s.skip()
	}
}

func (d *Decoder) jsonMetrics() {
	s := &d.scan
	if kind := s.kind(); kind != "an object" {
		d.refuse(twin.NotDecodable, "metrics", "expected an object, got %s", kind)
		s.skip()
		return
	}
	s.i++
	for first := true; ; first = false {
		key, more := s.key(first)
		if !more {
			return
		}
		name, ok := d.metric(key)
		if !ok {
			s.skip()
			continue
		}
		switch c := s.next(); {
		case c == '-' || c >= '0' && c <= '9':
			n := s.number()
			d.setReading(name, n.float(), false)
		case c == 't':
			s.word("true")
			d.setReading(name, 1, false)
		case c == 'f':
			s.word("false")
			d.setReading(name, 0, false)
		default:
			d.refuse(twin.NotDecodable, "metrics."+name, "expected a number or a boolean, got %s", s.kind())
			s.skip()
		}
	}
}

// jsonReported checks the syntax first and the content after, so that bad content does not hide what
// follows it.
func (d *Decoder) jsonReported() {
	s := &d.scan
	kind := s.kind()
	raw := s.skip()
	if s.problem != "" {
		return
	}
	if kind != "an object" {
		d.refuse(twin.NotDecodable, "reported", "expected an object, got %s", kind)
		return
	}
	reported, f := d.patch.fromJSON(raw)
	if f != nil {
		d.refuse(f.reason, "reported"+f.path, "%s", f.text)
		return
	}
	d.draft.reported = reported
}
