package api

import (
	"cmp"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const maxOrderKeys = 5

// order is how a list is sorted: by keys, then by id so that every order is total.
type order struct {
	keys []orderKey
	text string // canonical, part of what a page token is bound to
}

type orderKey struct {
	path []protoreflect.FieldDescriptor
	key  string // of the map in path[0], if that is one
	desc bool
}

// keyValue is one sort key of one message. Absent values come last in ascending order.
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

// sortKey is what a message is sorted by: its keys, then its id.
type sortKey struct {
	values []keyValue
	id     string
}

// newOrder parses order_by: fields separated by commas, each optionally followed by asc or desc.
// Map members are written metrics["temperature"].value, metrics.temperature.value or tags.site.
func newOrder(orderBy string, msg proto.Message) (order, error) {
	var o order
	if strings.TrimSpace(orderBy) == "" {
		return o, nil
	}
	for part := range strings.SplitSeq(orderBy, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 {
			return order{}, invalid("order_by", "%q: want FIELD or FIELD desc", strings.TrimSpace(part))
		}
		key, err := parseOrderKey(words[0], msg.ProtoReflect().Descriptor())
		if err != nil {
			return order{}, err
		}
		if len(words) == 2 {
			switch words[1] {
			case "asc":
			case "desc":
				key.desc = true
			default:
				return order{}, invalid("order_by", "%q: want asc or desc", words[1])
			}
		}
		o.keys = append(o.keys, key)
	}
	if len(o.keys) > maxOrderKeys {
		return order{}, invalid("order_by", "more than %d fields", maxOrderKeys)
	}
	o.text = strings.Join(strings.Fields(orderBy), " ")
	return o, nil
}

func parseOrderKey(text string, d protoreflect.MessageDescriptor) (orderKey, error) {
	plain := strings.NewReplacer(`["`, ".", `"]`, "", `['`, ".", `']`, "").Replace(text)
	parts := strings.Split(plain, ".")
	var key orderKey
	for i := 0; i < len(parts); i++ {
		var f protoreflect.FieldDescriptor
		if d != nil {
			if f = d.Fields().ByName(protoreflect.Name(parts[i])); f == nil {
				f = d.Fields().ByJSONName(parts[i])
			}
		}
		if f == nil {
			return orderKey{}, invalid("order_by", "%q: no such field", text)
		}
		key.path = append(key.path, f)
		if f.IsMap() {
			if i++; i == len(parts) || parts[i] == "" {
				return orderKey{}, invalid("order_by", "%q: a key is missing", text)
			}
			key.key = parts[i]
			f = f.MapValue()
		}
		d = f.Message()
		if d != nil && d.FullName() == timestampName {
			d = nil
			continue
		}
		if d == nil && f.IsList() || d != nil && (i == len(parts)-1 || d.FullName() == structName) {
			return orderKey{}, invalid("order_by", "%q: can't be sorted by", text)
		}
	}
	return key, nil
}

func (o order) keyOf(msg proto.Message, id string) sortKey {
	k := sortKey{id: id}
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
		if ts, ok := x.Interface().(*timestamppb.Timestamp); ok {
			return keyValue{kind: keyInt, i: ts.AsTime().UnixNano()}
		}
	}
	return keyValue{kind: keyAbsent}
}

// compare orders a before b if negative. It is total: equal only for one and the same id.
func (o order) compare(a, b sortKey) int {
	for i := range o.keys {
		c := a.values[i].compare(b.values[i])
		if c == 0 {
			continue
		}
		if o.keys[i].desc {
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
