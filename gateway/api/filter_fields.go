package api

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	timestampName = "google.protobuf.Timestamp"
	structName    = "google.protobuf.Struct"
)

// fieldSet is the top-level variables of a filter: the fields of one message.
type fieldSet struct {
	adapter types.Adapter
	byName  map[string]protoreflect.FieldDescriptor // by proto name and by JSON name
}

func newFieldSet(d protoreflect.MessageDescriptor, adapter types.Adapter) *fieldSet {
	s := &fieldSet{adapter: adapter, byName: make(map[string]protoreflect.FieldDescriptor)}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		s.byName[string(f.Name())] = f
		s.byName[f.JSONName()] = f
	}
	return s
}

func (s *fieldSet) variables() []cel.EnvOption {
	opts := make([]cel.EnvOption, 0, len(s.byName))
	for name, f := range s.byName {
		opts = append(opts, cel.Variable(name, fieldType(f)))
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
	msg    protoreflect.Message
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
	v := a.msg.Get(f)
	switch {
	case f.IsMap(), f.IsList():
		return a.fields.adapter.NativeToValue(v.Interface()), true
	case f.Kind() == protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return types.String(e.Name()), true
		}
		return types.String(""), true
	case f.Kind() == protoreflect.MessageKind:
		if !a.msg.Has(f) && f.Message().FullName() == timestampName {
			return types.NullValue, true // not yet: compares with nothing
		}
		return a.fields.adapter.NativeToValue(v.Message().Interface()), true
	default:
		return a.fields.adapter.NativeToValue(v.Interface()), true
	}
}

// looseTypes declares numbers inside messages dynamic, like those at the top, and lets fields be
// named as in JSON.
type looseTypes struct{ *types.Registry }

// FindStructFieldType implements types.Provider.
func (t *looseTypes) FindStructFieldType(message, field string) (*types.FieldType, bool) {
	ft, ok := t.Registry.FindStructFieldType(message, field)
	if !ok {
		if ft, ok = t.byJSONName(message, field); !ok {
			return nil, false
		}
	}
	switch ft.Type.Kind() {
	case types.IntKind, types.UintKind, types.DoubleKind:
		loose := *ft
		loose.Type = types.DynType
		return &loose, true
	default:
		return ft, true
	}
}

func (t *looseTypes) byJSONName(message, field string) (*types.FieldType, bool) {
	names, _ := t.FindStructFieldNames(message)
	for _, name := range names {
		if lowerCamel(name) == field {
			return t.Registry.FindStructFieldType(message, name)
		}
	}
	return nil, false
}

// mixedArithmetic lets numbers of different types calculate with each other, as doubles. CEL has
// that for comparisons only, and a filter that silently never matches helps nobody.
func mixedArithmetic() []cel.EnvOption {
	ops := map[string]func(a, b types.Double) ref.Val{
		"_+_": func(a, b types.Double) ref.Val { return a.Add(b) },
		"_-_": func(a, b types.Double) ref.Val { return a.Subtract(b) },
		"_*_": func(a, b types.Double) ref.Val { return a.Multiply(b) },
		"_/_": func(a, b types.Double) ref.Val { return a.Divide(b) },
	}
	numbers := []*cel.Type{cel.IntType, cel.UintType, cel.DoubleType}
	var opts []cel.EnvOption
	for name, op := range ops {
		binding := cel.BinaryBinding(func(a, b ref.Val) ref.Val {
			x, okX := a.ConvertToType(types.DoubleType).(types.Double)
			y, okY := b.ConvertToType(types.DoubleType).(types.Double)
			if !okX || !okY {
				return types.MaybeNoSuchOverloadErr(a)
			}
			return op(x, y)
		})
		var overloads []cel.FunctionOpt
		for _, a := range numbers {
			for _, b := range numbers {
				if a == b {
					continue
				}
				id := "mixed" + name + a.String() + "_" + b.String()
				overloads = append(overloads, cel.Overload(id, []*cel.Type{a, b}, cel.DoubleType, binding))
			}
		}
		opts = append(opts, cel.Function(name, overloads...))
	}
	return opts
}
