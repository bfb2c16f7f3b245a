package selection

import (
	"cmp"
	"encoding/binary"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/state"
)

// keyValue is one sort key of one message. Absent values come last, in descending order as well: who asks
// for the hottest ten wants no twins that were never measured.
type keyValue struct {
	kind keyKind
	num  float64
	i    int64
	u    uint64
	s    string
}

type keyKind byte

const (
	keyInt keyKind = iota + 1
	keyUint
	keyFloat
	keyString
	keyAbsent // behind every value
)

// Key is what a message is sorted by: its keys, then its id.
type Key struct {
	values []keyValue
	id     string
}

// ID is the message's.
func (k Key) ID() string { return k.id }

// KeyOf is the key of a message.
func (o Order) KeyOf(msg proto.Message, id string) Key {
	k := Key{id: id}
	if len(o.keys) > 0 {
		k.values = make([]keyValue, len(o.keys))
		for i := range o.keys {
			k.values[i] = o.keys[i].valueOf(msg.ProtoReflect())
		}
	}
	return k
}

func (k orderKey) valueOf(msg protoreflect.Message) keyValue {
	absent := keyValue{kind: keyAbsent}
	for i, f := range k.path {
		if f.HasPresence() && !msg.Has(f) {
			return absent
		}
		v := msg.Get(f)
		if f.IsMap() {
			v = v.Map().Get(protoreflect.ValueOfString(k.key).MapKey())
			if !v.IsValid() {
				return absent
			}
		}
		if i == len(k.path)-1 {
			return scalarKey(v)
		}
		msg = v.Message()
	}
	return absent
}

func scalarKey(v protoreflect.Value) keyValue {
	switch x := v.Interface().(type) {
	case bool:
		if x {
			return keyValue{kind: keyInt, i: 1}
		}
		return keyValue{kind: keyInt}
	case int32:
		return keyValue{kind: keyInt, i: int64(x)}
	case int64:
		return keyValue{kind: keyInt, i: x}
	case protoreflect.EnumNumber:
		return keyValue{kind: keyInt, i: int64(x)}
	case uint32:
		return keyValue{kind: keyUint, u: uint64(x)}
	case uint64:
		return keyValue{kind: keyUint, u: x}
	case float32:
		return keyValue{kind: keyFloat, num: float64(x)}
	case float64:
		if math.IsNaN(x) {
			return keyValue{kind: keyAbsent}
		}
		return keyValue{kind: keyFloat, num: x}
	case string:
		return keyValue{kind: keyString, s: x}
	case protoreflect.Message:
		switch m := x.Interface().(type) {
		case *timestamppb.Timestamp:
			return keyValue{kind: keyInt, i: m.AsTime().UnixNano()}
		case *durationpb.Duration:
			return keyValue{kind: keyInt, i: int64(m.AsDuration())}
		}
	}
	return keyValue{kind: keyAbsent}
}

// Compare orders a before b if negative. It is total: equal only for one and the same id.
func (o Order) Compare(a, b Key) int {
	for i := range o.keys {
		c := a.values[i].compare(b.values[i])
		if c == 0 {
			continue
		}
		if o.keys[i].desc && a.values[i].kind != keyAbsent && b.values[i].kind != keyAbsent {
			return -c
		}
		return c
	}
	return strings.Compare(a.id, b.id)
}

func (v keyValue) compare(w keyValue) int {
	if v.kind != w.kind {
		return cmp.Compare(v.kind, w.kind)
	}
	switch v.kind {
	case keyInt:
		return cmp.Compare(v.i, w.i)
	case keyUint:
		return cmp.Compare(v.u, w.u)
	case keyFloat:
		return cmp.Compare(v.num, w.num)
	case keyString:
		return strings.Compare(v.s, w.s)
	default:
		return 0
	}
}

// Append appends the key for ReadKey.
func (k Key) Append(b []byte) []byte {
	for _, v := range k.values {
		b = append(b, byte(v.kind))
		switch v.kind {
		case keyInt:
			b = binary.LittleEndian.AppendUint64(b, uint64(v.i))
		case keyUint:
			b = binary.LittleEndian.AppendUint64(b, v.u)
		case keyFloat:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.num))
		case keyString:
			b = binary.AppendUvarint(b, uint64(len(v.s)))
			b = append(b, v.s...)
		case keyAbsent:
		}
	}
	b = binary.AppendUvarint(b, uint64(len(k.id)))
	return append(b, k.id...)
}

// ReadKey reads a key of this order; false if it is none.
func (o Order) ReadKey(b []byte) (Key, bool) {
	r := state.NewReader(b, nil)
	var k Key
	for range o.keys {
		v := keyValue{kind: keyKind(r.Uint())}
		switch v.kind {
		case keyInt:
			v.i = int64(r.Fixed())
		case keyUint:
			v.u = r.Fixed()
		case keyFloat:
			if v.num = r.Float(); math.IsNaN(v.num) {
				r.Fail("a value that is no number")
			}
		case keyString:
			v.s = r.Text()
		case keyAbsent:
		default:
			r.Fail("a value of kind %d", v.kind)
		}
		k.values = append(k.values, v)
	}
	k.id = r.Text()
	return k, r.Err() == nil && r.Len() == 0
}
