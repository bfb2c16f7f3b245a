// Package selection picks twins, and other messages, out of many: the first few in an order, or groups
// of them with what their metrics say. A node does it for its own partitions, and what several found is
// put together with the same code.
//
// It filters nothing itself and reads no twins: its caller offers them one by one.
//
// Concurrency: an Order is safe for concurrent use; everything else belongs to one goroutine.
package selection

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	maxOrderKeys = 5

	timestampName = "google.protobuf.Timestamp"
	durationName  = "google.protobuf.Duration"
	structName    = "google.protobuf.Struct"
)

// Error is a field of a request that is wrong, and why.
type Error struct{ Field, Text string }

func (e *Error) Error() string { return e.Field + ": " + e.Text }

// Order is how a list is sorted: by keys, then by id so that every order is total. The zero Order is by
// id alone.
type Order struct {
	keys []orderKey
	text string
}

type orderKey struct {
	path []protoreflect.FieldDescriptor
	key  string // of the map in path[0], if that is one
	desc bool
	read reader // of a twin; nil: by way of its message
}

// ParseOrder parses order_by: fields separated by commas, each optionally followed by asc or desc.
// Map members are written metrics["temperature"].value, metrics.temperature.value or tags.site. Whatever
// is wrong with it is an *Error.
func ParseOrder(orderBy string, msg proto.Message) (Order, error) {
	var o Order
	if strings.TrimSpace(orderBy) == "" {
		return o, nil
	}
	for part := range strings.SplitSeq(orderBy, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 {
			return Order{}, wrong("%q: want FIELD or FIELD desc", strings.TrimSpace(part))
		}
		key, err := parseOrderKey(words[0], msg.ProtoReflect().Descriptor())
		if err != nil {
			return Order{}, err
		}
		if len(words) == 2 {
			switch words[1] {
			case "asc":
			case "desc":
				key.desc = true
			default:
				return Order{}, wrong("%q: want asc or desc", words[1])
			}
		}
		if _, twins := msg.(*doppelv1.Twin); twins {
			key.read = readerOf(&key)
		}
		o.keys = append(o.keys, key)
	}
	if len(o.keys) > maxOrderKeys {
		return Order{}, wrong("more than %d fields", maxOrderKeys)
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
			return orderKey{}, wrong("%q: no such field", text)
		}
		key.path = append(key.path, f)
		if f.IsMap() {
			if i++; i == len(parts) || parts[i] == "" {
				return orderKey{}, wrong("%q: a key is missing", text)
			}
			key.key = parts[i]
			f = f.MapValue()
		}
		d = f.Message()
		if d != nil && (d.FullName() == timestampName || d.FullName() == durationName) {
			d = nil
			continue
		}
		if d == nil && f.IsList() || d != nil && (i == len(parts)-1 || d.FullName() == structName) {
			return orderKey{}, wrong("%q: can't be sorted by", text)
		}
	}
	return key, nil
}

func wrong(format string, args ...any) error {
	return &Error{Field: "order_by", Text: fmt.Sprintf(format, args...)}
}

// String is the order in one way of writing it.
func (o Order) String() string { return o.text }
