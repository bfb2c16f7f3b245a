package api

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	maxMaskPaths = 100

	timestampName = "google.protobuf.Timestamp"
	structName    = "google.protobuf.Struct"
)

// mask is a read mask as a tree. A nil mask, or one without members, keeps everything below it.
type mask map[string]mask

// newMask checks a read mask against the message it is for. Below a map the next part of a path is
// a key (metrics.temperature, tags.site); below free-form properties it is a member.
func newMask(fm *fieldmaskpb.FieldMask, msg proto.Message) (mask, error) {
	if len(fm.GetPaths()) > maxMaskPaths {
		return nil, invalid("read_mask", "more than %d paths", maxMaskPaths)
	}
	root := mask{}
	for _, path := range fm.GetPaths() {
		if path == "*" {
			return nil, nil
		}
		parts := strings.Split(path, ".")
		if err := checkPath(parts, msg.ProtoReflect().Descriptor()); err != nil {
			return nil, invalid("read_mask", "%q: %v", path, err)
		}
		root.add(parts)
	}
	if len(root) == 0 {
		return nil, nil
	}
	return root, nil
}

// add enters a path; a shorter one wins over the longer ones below it.
func (m mask) add(parts []string) {
	at := m
	for i, part := range parts {
		next, ok := at[part]
		if ok && len(next) == 0 {
			return
		}
		if i == len(parts)-1 {
			at[part] = nil
			return
		}
		if !ok {
			next = mask{}
			at[part] = next
		}
		at = next
	}
}

type pathError string

func (e pathError) Error() string { return string(e) }

// checkPath also turns the JSON names of fields into their proto names.
func checkPath(parts []string, d protoreflect.MessageDescriptor) error {
	for i := 0; i < len(parts); i++ {
		if d.FullName() == structName {
			return nil // any member, any depth
		}
		f := d.Fields().ByName(protoreflect.Name(parts[i]))
		if f == nil {
			f = d.Fields().ByJSONName(parts[i])
		}
		if f == nil {
			return pathError(fmt.Sprintf("%s has no field %q", d.Name(), parts[i]))
		}
		parts[i] = string(f.Name())
		if f.IsMap() {
			if i++; i == len(parts) {
				return nil
			}
			if parts[i] == "" {
				return pathError("empty key")
			}
			f = f.MapValue()
		}
		if i == len(parts)-1 {
			return nil
		}
		if f.IsList() || f.Message() == nil || f.Message().FullName() == timestampName {
			return pathError(parts[i]) + " has no fields"
		}
		d = f.Message()
	}
	return nil
}

// prune clears everything in msg that the mask does not name.
func (m mask) prune(msg protoreflect.Message) {
	if len(m) == 0 {
		return
	}
	if msg.Descriptor().FullName() == structName {
		m.pruneMap(msg.Mutable(msg.Descriptor().Fields().ByName("fields")).Map(), pruneValue)
		return
	}
	msg.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		below, ok := m[string(f.Name())]
		switch {
		case !ok:
			msg.Clear(f)
		case len(below) == 0:
		case f.IsMap():
			below.pruneMap(v.Map(), func(m mask, v protoreflect.Value) {
				if inner, ok := v.Interface().(protoreflect.Message); ok {
					m.prune(inner)
				}
			})
		case f.Message() != nil && !f.IsList():
			below.prune(v.Message())
		}
		return true
	})
}

func (m mask) pruneMap(v protoreflect.Map, each func(mask, protoreflect.Value)) {
	v.Range(func(k protoreflect.MapKey, v2 protoreflect.Value) bool {
		below, ok := m[k.String()]
		if !ok {
			v.Clear(k)
		} else if len(below) > 0 {
			each(below, v2)
		}
		return true
	})
}

// pruneValue goes into a google.protobuf.Value that is an object.
func pruneValue(m mask, v protoreflect.Value) {
	value := v.Message()
	f := value.Descriptor().Fields().ByName("struct_value")
	if value.Has(f) {
		m.prune(value.Mutable(f).Message())
	}
}
