package filter

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	timestampName = "google.protobuf.Timestamp"
	structName    = "google.protobuf.Struct"
)

// fieldSet is the top-level variables of a filter: the fields of one message, by their names in the
// proto file and in JSON.
type fieldSet struct {
	adapter types.Adapter
	byName  map[string]field
}

type field struct {
	desc protoreflect.FieldDescriptor
	get  ref.FieldGetter
}

func newFieldSet(d protoreflect.MessageDescriptor, registry *types.Registry) *fieldSet {
	s := &fieldSet{adapter: registry, byName: make(map[string]field)}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		ft, ok := registry.FindStructFieldType(string(d.FullName()), string(f.Name()))
		if !ok {
			continue // only if the registry lacks the message, which its maker put there
		}
		s.byName[string(f.Name())] = field{desc: f, get: ft.GetFrom}
		s.byName[f.JSONName()] = s.byName[string(f.Name())]
	}
	return s
}

func (s *fieldSet) variables() []cel.EnvOption {
	opts := make([]cel.EnvOption, 0, len(s.byName))
	for name, f := range s.byName {
		opts = append(opts, cel.Variable(name, fieldType(f.desc)))
	}
	return opts
}

// fieldType is the declared type of a field. Numbers are declared dynamic, because the checker
// would otherwise refuse version == 5 (unsigned against signed).
func fieldType(f protoreflect.FieldDescriptor) *cel.Type {
	switch {
	case f.IsMap():
		return cel.MapType(cel.StringType, singleType(f.MapValue()))
	case f.IsList():
		return cel.ListType(singleType(f))
	default:
		return singleType(f)
	}
}

func singleType(f protoreflect.FieldDescriptor) *cel.Type {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return cel.BoolType
	case protoreflect.StringKind, protoreflect.EnumKind: // enums by their names
		return cel.StringType
	case protoreflect.MessageKind:
		switch name := f.Message().FullName(); name {
		case timestampName:
			return cel.TimestampType
		case structName:
			return cel.MapType(cel.StringType, cel.DynType)
		default:
			return cel.ObjectType(string(name))
		}
	default:
		return cel.DynType
	}
}

// activation gives a filter the fields of one message, each converted only if it is asked for.
type activation struct {
	fields *fieldSet
	msg    proto.Message
}

var _ interpreter.Activation = (*activation)(nil)

// Parent implements interpreter.Activation.
func (a *activation) Parent() interpreter.Activation { return nil }

// ResolveName implements interpreter.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	f, ok := a.fields.byName[name]
	if !ok {
		return nil, false
	}
	switch f.desc.Kind() {
	case protoreflect.EnumKind:
		e := f.desc.Enum().Values().ByNumber(a.msg.ProtoReflect().Get(f.desc).Enum())
		if e == nil {
			return types.String(""), true
		}
		return types.String(e.Name()), true
	case protoreflect.MessageKind:
		if f.desc.Message().FullName() == timestampName && !a.msg.ProtoReflect().Has(f.desc) {
			return types.NullValue, true // not yet: compares with nothing
		}
	default:
	}
	v, err := f.get(a.msg)
	if err != nil {
		return types.WrapErr(err), true
	}
	return ordered(a.fields.adapter.NativeToValue(v)), true
}

// looseTypes declares numbers inside messages dynamic, like those at the top, and lets fields be
// named as in JSON.
type looseTypes struct{ *types.Registry }

// FindStructFieldType implements types.Provider.
func (t *looseTypes) FindStructFieldType(message, field string) (*types.FieldType, bool) {
	ft, ok := t.Registry.FindStructFieldType(message, field)
	if !ok {
		if field, ok = t.protoName(message, field); !ok {
			return nil, false
		}
		ft, _ = t.Registry.FindStructFieldType(message, field)
	}
	ft = lazily(ft, field)
	switch ft.Type.Kind() {
	case types.IntKind, types.UintKind, types.DoubleKind:
		ft.Type = types.DynType
	default:
	}
	return ft, true
}

// protoName is the name in the proto file of a field that is named as in JSON.
func (t *looseTypes) protoName(message, field string) (string, bool) {
	names, _ := t.FindStructFieldNames(message)
	for _, name := range names {
		if lowerCamel(name) == field {
			return name, true
		}
	}
	return "", false
}
