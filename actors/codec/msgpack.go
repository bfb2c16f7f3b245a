package codec

import "github.com/doppel-iot/doppel/actors/twin"

// msgpack decodes a message in MessagePack: the shape of the JSON form, with its time also as a
// MessagePack timestamp. nil stands for an absent member.
func (d *Decoder) msgpack(payload []byte) *Refusal {
	r := &d.pack
	r.reset(payload)
	if v := r.value(); v.kind != packMap {
		if r.problem == "" {
			return refuse(twin.NotDecodable, "a message is a MessagePack map, got %s", v.kind)
		}
	} else {
		d.begin(-1)
		for range v.len {
			if refusal := d.packMember(); refusal != nil {
				return refusal
			}
			if r.problem != "" {
				break
			}
		}
	}
	if r.problem == "" && r.i < len(r.b) {
		r.fail("data behind the map")
	}
	if r.problem != "" {
		return refuse(twin.NotDecodable, "not MessagePack: %s", r.problem)
	}
	if !d.batch {
		d.end()
	}
	return nil
}

// packMember reads a member of the message itself.
func (d *Decoder) packMember() *Refusal {
	r := &d.pack
	f := d.packKey()
	v := r.value()
	if r.problem != "" {
		return nil
	}
	switch {
	case f == 0 || v.kind == packNil:
		r.rest(v)
		return nil
	case f == fieldBoot:
		if d.hasBoot {
			return refuse(twin.NotDecodable, "boot: appears twice")
		}
		if !v.numeric() {
			return refuse(twin.NotDecodable, "boot: expected an integer, got %s", v.kind)
		}
		return d.setBoot(v.integer())
	case f == fieldSamples:
		return d.packSamples(v)
	case d.batch:
		return mixed(f)
	}
	d.packField(f, v)
	return nil
}

// packKey reads a member's name; 0: it is not known, or no string.
func (d *Decoder) packKey() field {
	r := &d.pack
	k := r.value()
	if k.kind == packString {
		return fieldNamed(k.bytes)
	}
	r.rest(k)
	return 0
}

func (d *Decoder) packSamples(v packed) *Refusal {
	r := &d.pack
	switch {
	case v.kind != packArray:
		return refuse(twin.NotDecodable, "samples: expected an array, got %s", v.kind)
	case d.batch:
		return refuse(twin.NotDecodable, "samples: appears twice")
	case d.draft.seen != 0:
		return mixed(d.draft.seen & -d.draft.seen)
	case v.len > MaxSamples:
		return refuse(twin.TooManySamples, "samples: %d in a message, at most %d are taken", v.len, MaxSamples)
	}
	d.batch = true
	for range v.len {
		d.begin(len(d.items))
		d.packSample(r.value())
		d.end()
		if r.problem != "" {
			break
		}
	}
	return nil
}

// packSample reads one element of samples.
func (d *Decoder) packSample(sample packed) {
	r := &d.pack
	if sample.kind != packMap {
		d.refuse(twin.NotDecodable, "", "expected a map, got %s", sample.kind)
		r.rest(sample)
		return
	}
	for range sample.len {
		f := d.packKey()
		v := r.value()
		if r.problem != "" {
			return
		}
		switch {
		case f == 0 || v.kind == packNil:
			r.rest(v)
		case f == fieldBoot || f == fieldSamples:
			d.misplaced(f)
			r.rest(v)
		default:
			d.packField(f, v)
		}
	}
}

// packField reads a member of a sample; it is not nil.
func (d *Decoder) packField(f field, v packed) {
	r := &d.pack
	if !d.once(f) {
		r.rest(v)
		return
	}
	switch f {
	case fieldSeq:
		if v.numeric() {
			d.setSeq(v.integer())
			return
		}
		d.refuse(twin.NotDecodable, "seq", "expected an integer, got %s", v.kind)
		r.rest(v)
	case fieldTime:
		d.packTime(v)
	case fieldMetrics:
		d.packMetrics(v)
	case fieldReported:
		d.packReported(v)
	default:
		r.rest(v)
	}
}

func (d *Decoder) packTime(v packed) {
	switch {
	case v.kind == packString:
		d.setTimeText(v.bytes)
	case v.numeric():
		d.setTime(v.integer())
	case v.kind == packExt:
		sec, nsec, ok := v.timestamp()
		if !ok {
			d.refuse(twin.NotDecodable, "time", "extension type %d of %d bytes is no timestamp", v.ext, len(v.bytes))
			return
		}
		d.setUnix(sec, nsec)
	default:
		d.refuse(twin.NotDecodable, "time", "expected an integer, a timestamp or a string, got %s; %s", v.kind, timeForms)
		d.pack.rest(v)
	}
}

func (d *Decoder) packMetrics(metrics packed) {
	r := &d.pack
	if metrics.kind != packMap {
		d.refuse(twin.NotDecodable, "metrics", "expected a map, got %s", metrics.kind)
		r.rest(metrics)
		return
	}
	for range metrics.len {
		k := r.value()
		if k.kind != packString && r.problem == "" {
			d.refuse(twin.NotDecodable, "metrics", "a name is a string, got %s", k.kind)
			r.rest(k)
			r.skip()
			continue
		}
		v := r.value()
		if r.problem != "" {
			return
		}
		name, ok := d.metric(k.bytes)
		switch {
		case !ok:
			r.rest(v)
		case v.kind == packBool || v.numeric():
			d.setReading(name, v.float(), false)
		default:
			d.refuse(twin.NotDecodable, "metrics."+name, "expected a number or a boolean, got %s", v.kind)
			r.rest(v)
		}
	}
}

func (d *Decoder) packReported(v packed) {
	r := &d.pack
	if v.kind != packMap {
		d.refuse(twin.NotDecodable, "reported", "expected a map, got %s", v.kind)
		r.rest(v)
		return
	}
	start := r.i
	r.rest(v)
	if r.problem != "" {
		return
	}
	reported, f := d.patch.fromMsgpack(r.b[start:r.i], v.len)
	if f != nil {
		d.refuse(f.reason, "reported"+f.path, "%s", f.text)
		return
	}
	d.draft.reported = reported
}
