package codec

import (
	"github.com/doppel-iot/doppel/actors/twin"
)

// Status decodes a message of the status topic, which is JSON. Without a refusal, false means that
// there is nothing to apply: an empty payload, with which a retained message is deleted.
func (d *Decoder) Status(payload []byte) (twin.Status, bool, *Refusal) {
	if len(payload) == 0 {
		return twin.Status{}, false, nil
	}
	if r := checkSize(payload); r != nil {
		return twin.Status{}, false, r
	}
	s := &d.scan
	s.reset(payload)
	if s.peek() != '{' {
		return twin.Status{}, false, d.jsonNoObject()
	}
	s.i++
	var st twin.Status
	var seen statusMember
	for first := true; ; first = false {
		key, more := s.key(first)
		if !more {
			break
		}
		if r := d.statusMember(key, &st, &seen); r != nil {
			return twin.Status{}, false, r
		}
	}
	if r := s.close(); r != nil {
		return twin.Status{}, false, r
	}
	if seen&statusOnline == 0 {
		return twin.Status{}, false, refuse(twin.NotDecodable, "online: missing; it is true or false")
	}
	return st, true, nil
}

type statusMember uint8

const (
	statusOnline statusMember = 1 << iota
	statusBoot
	statusSession
)

func (d *Decoder) statusMember(key []byte, st *twin.Status, seen *statusMember) *Refusal {
	var m statusMember
	var name string
	switch string(key) {
	case "online":
		m, name = statusOnline, "online"
	case "boot":
		m, name = statusBoot, "boot"
	case "session":
		m, name = statusSession, "session"
	default:
		d.scan.skip()
		return nil
	}
	if *seen&m != 0 {
		return refuse(twin.NotDecodable, "%s: appears twice", name)
	}
	*seen |= m
	if m == statusOnline {
		return d.statusOnline(st)
	}
	n, given, kind := d.jsonInteger()
	switch {
	case kind != "":
		return refuse(twin.NotDecodable, "%s: expected an integer, got %s", name, kind)
	case !given:
		return nil
	}
	if problem := n.check(0); problem != "" {
		return refuse(twin.NumberRange, "%s: %s", name, problem)
	}
	if m == statusBoot {
		st.Boot, st.HasBoot = n.abs, true
	} else {
		st.Session, st.HasSession = n.abs, true
	}
	return nil
}

func (d *Decoder) statusOnline(st *twin.Status) *Refusal {
	s := &d.scan
	switch s.next() {
	case 't':
		s.word("true")
		st.Online = true
	case 'f':
		s.word("false")
	default:
		return refuse(twin.NotDecodable, "online: expected true or false, got %s", s.kind())
	}
	return nil
}
