package selection

import (
	"math"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/filter"
)

// reader reads a sort key of a twin without making its message.
type reader func(v filter.View) keyValue

// readerOf is how the field is read that a key names, in a message of type Twin; nil: only the message
// has it.
func readerOf(k *orderKey) reader {
	name := string(k.path[0].Name())
	switch {
	case len(k.path) == 2 && name == "counters":
		return counterReader(string(k.path[1].Name()))
	case len(k.path) == 2 && name == "metrics" && k.path[1].Name() == "value":
		metric := k.key
		return func(v filter.View) keyValue {
			x, ok := v.Value(metric)
			if !ok || math.IsNaN(x) {
				return keyValue{kind: keyAbsent}
			}
			return keyValue{kind: keyFloat, num: x}
		}
	case len(k.path) > 1:
		return nil
	case name == "tags":
		tag := k.key
		return func(v filter.View) keyValue {
			value, ok := v.Tag(tag)
			if !ok {
				return keyValue{kind: keyAbsent}
			}
			return keyValue{kind: keyString, s: string(value)}
		}
	}
	switch name {
	case "id":
		return func(v filter.View) keyValue { return keyValue{kind: keyString, s: v.ID()} }
	case "version":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Version()} }
	case "reported_version":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.ReportedVersion()} }
	case "digest":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Digest()} }
	case "online":
		return func(v filter.View) keyValue { return yesNo(v.Online()) }
	case "last_seen":
		return func(v filter.View) keyValue { return moment(v.LastSeen()) }
	case "create_time":
		return func(v filter.View) keyValue { return moment(v.CreateTime()) }
	default:
		return nil
	}
}

func counterReader(name string) reader {
	switch name {
	case "applied":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().Applied} }
	case "late":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().Late} }
	case "duplicate":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().Duplicate} }
	case "dead_lettered":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().DeadLettered} }
	case "gaps":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().Gaps} }
	case "missing":
		return func(v filter.View) keyValue { return keyValue{kind: keyUint, u: v.Counters().Missing} }
	default:
		return nil
	}
}

func yesNo(v bool) keyValue {
	if v {
		return keyValue{kind: keyInt, i: 1}
	}
	return keyValue{kind: keyInt}
}

func moment(nanos int64) keyValue {
	if nanos == 0 {
		return keyValue{kind: keyAbsent}
	}
	return keyValue{kind: keyInt, i: nanos}
}

// KeyOfTwin makes k the key that KeyOf would give of the twin's message. It shares the memory of the
// twin's id. False: the twin cannot be had. The order must be one of twins.
func (o Order) KeyOfTwin(k *Key, q *filter.Question) bool {
	k.id, k.values = q.View.ID(), k.values[:0]
	var msg proto.Message
	for i := range o.keys {
		if read := o.keys[i].read; read != nil {
			k.values = append(k.values, read(q.View))
			continue
		}
		if msg == nil {
			t := q.Whole()
			if t == nil {
				return false
			}
			msg = filter.Message(t, q.Facts)
		}
		k.values = append(k.values, o.keys[i].valueOf(msg.ProtoReflect()))
	}
	return true
}

// Clone is the key with memory of its own.
func (k Key) Clone() Key {
	c := Key{id: strings.Clone(k.id)}
	if len(k.values) > 0 {
		c.values = make([]keyValue, len(k.values))
		for i, v := range k.values {
			v.s = strings.Clone(v.s)
			c.values[i] = v
		}
	}
	return c
}
