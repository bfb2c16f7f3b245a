package filter

import (
	"reflect"
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// lazyMap is a map of which members are looked up one by one. Whatever else one can do with a map is
// done with the whole of it.
type lazyMap struct {
	find  func(key string) (ref.Val, bool)
	size  func() int // nil: only the whole knows
	whole func() traits.Mapper
	made  traits.Mapper
}

var _ traits.Mapper = (*lazyMap)(nil)

func (m *lazyMap) all() traits.Mapper {
	if m.made == nil {
		m.made = m.whole()
	}
	return m.made
}

// Find implements traits.Mapper.
func (m *lazyMap) Find(key ref.Val) (ref.Val, bool) {
	if s, ok := key.(types.String); ok {
		return m.find(string(s))
	}
	return m.all().Find(key)
}

// Get implements traits.Indexer.
func (m *lazyMap) Get(key ref.Val) ref.Val {
	if s, ok := key.(types.String); ok {
		if v, ok := m.find(string(s)); ok {
			return v
		}
	}
	return m.all().Get(key)
}

// Contains implements traits.Container.
func (m *lazyMap) Contains(key ref.Val) ref.Val {
	if s, ok := key.(types.String); ok {
		_, found := m.find(string(s))
		return types.Bool(found)
	}
	return m.all().Contains(key)
}

// Size implements traits.Sizer.
func (m *lazyMap) Size() ref.Val {
	if m.size != nil {
		return types.Int(m.size())
	}
	return m.all().Size()
}

// Iterator implements traits.Iterable.
func (m *lazyMap) Iterator() traits.Iterator { return inOrder(m.all().Iterator()) }

// ConvertToNative implements ref.Val.
func (m *lazyMap) ConvertToNative(t reflect.Type) (any, error) { return m.all().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (m *lazyMap) ConvertToType(t ref.Type) ref.Val { return m.all().ConvertToType(t) }

// Equal implements ref.Val.
func (m *lazyMap) Equal(other ref.Val) ref.Val { return m.all().Equal(other) }

// Type implements ref.Val.
func (m *lazyMap) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (m *lazyMap) Value() any { return m.all().Value() }

// orderedMap is a map whose keys come in order: what a filter says of a twin must not depend on chance.
type orderedMap struct{ traits.Mapper }

// ordered is v, or where that is a map, the map in order.
func ordered(v ref.Val) ref.Val {
	if m, ok := v.(traits.Mapper); ok {
		return &orderedMap{m}
	}
	return v
}

// Iterator implements traits.Iterable.
func (m *orderedMap) Iterator() traits.Iterator { return inOrder(m.Mapper.Iterator()) }

// Find implements traits.Mapper.
func (m *orderedMap) Find(key ref.Val) (ref.Val, bool) {
	v, ok := m.Mapper.Find(key)
	return ordered(v), ok
}

// Get implements traits.Indexer.
func (m *orderedMap) Get(key ref.Val) ref.Val { return ordered(m.Mapper.Get(key)) }

// inOrder goes through the same keys in byte order.
func inOrder(it traits.Iterator) traits.Iterator {
	var keys []string
	for it.HasNext() == types.True {
		if key, ok := it.Next().(types.String); ok { // there are no other keys
			keys = append(keys, string(key))
		}
	}
	slices.Sort(keys)
	return types.NewStringList(types.DefaultTypeAdapter, keys).Iterator()
}

// getter looks up fields of a lazy message by their proto names, as protobuf's reflection would give
// them.
type getter interface {
	get(field string) (any, bool)
}

// message is a message of which fields are looked up one by one. Whatever else one can do with a
// message is done with the real one.
type message struct {
	a          *twinActivation
	field, key string // where it stands; key: if field is a map
	made       ref.Val
}

var (
	_ proto.Message      = (*message)(nil)
	_ traits.Indexer     = (*message)(nil)
	_ traits.FieldTester = (*message)(nil)
)

func (m *message) all() ref.Val {
	if m.made == nil {
		v, _ := m.a.message().ResolveName(m.field)
		m.made, _ = v.(ref.Val)
		if outer, ok := m.made.(traits.Mapper); ok {
			m.made = outer.Get(types.String(m.key))
		}
	}
	return m.made
}

// ProtoReflect implements proto.Message: so that another message compares with this one.
func (m *message) ProtoReflect() protoreflect.Message {
	made, _ := m.all().Value().(proto.Message)
	return made.ProtoReflect()
}

// Get implements traits.Indexer.
func (m *message) Get(field ref.Val) ref.Val {
	if made, ok := m.all().(traits.Indexer); ok {
		return made.Get(field)
	}
	return types.MaybeNoSuchOverloadErr(field)
}

// IsSet implements traits.FieldTester.
func (m *message) IsSet(field ref.Val) ref.Val {
	if made, ok := m.all().(traits.FieldTester); ok {
		return made.IsSet(field)
	}
	return types.MaybeNoSuchOverloadErr(field)
}

// ConvertToNative implements ref.Val.
func (m *message) ConvertToNative(t reflect.Type) (any, error) { return m.all().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (m *message) ConvertToType(t ref.Type) ref.Val { return m.all().ConvertToType(t) }

// Equal implements ref.Val.
func (m *message) Equal(other ref.Val) ref.Val { return m.all().Equal(other) }

// Type implements ref.Val.
func (m *message) Type() ref.Type { return m.all().Type() }

// Value implements ref.Val.
func (m *metric) Value() any { return m }

// Value implements ref.Val.
func (c *counters) Value() any { return c }

// lazily lets a field be read of lazy messages, too.
func lazily(ft *types.FieldType, name string) *types.FieldType {
	lazy := *ft
	lazy.GetFrom = func(target any) (any, error) {
		if m, ok := target.(getter); ok {
			if v, ok := m.get(name); ok {
				return v, nil
			}
		}
		return ft.GetFrom(target)
	}
	return &lazy
}
