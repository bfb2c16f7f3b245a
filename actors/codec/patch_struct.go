package codec

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/twin"
)

// fromStruct writes an encoded google.protobuf.Struct. Reported properties are rare in telemetry, so
// this goes the long way through the generated types.
func (p *patch) fromStruct(b []byte) ([]byte, *flaw) {
	var s structpb.Struct
	if err := (proto.UnmarshalOptions{RecursionLimit: 4 * maxNesting}).Unmarshal(b, &s); err != nil {
		return nil, &flaw{twin.NotDecodable, "", "not a google.protobuf.Struct of at most " + deepest}
	}
	start := len(p.out)
	if f := p.structObject(&s, 1); f != nil {
		p.drop(start)
		return nil, f
	}
	return p.taken(start), nil
}

func (p *patch) structObject(s *structpb.Struct, depth int) *flaw {
	if f := tooDeep(depth); f != nil {
		return f
	}
	object := p.open()
	for _, name := range slices.Sorted(maps.Keys(s.GetFields())) {
		p.name(object, []byte(name))
		if f := p.structValue(s.GetFields()[name], depth+1); f != nil {
			return f.in([]byte(name))
		}
		p.done()
	}
	return p.shut(object)
}

func (p *patch) structValue(v *structpb.Value, depth int) *flaw {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		p.out = append(p.out, "null"...)
	case *structpb.Value_BoolValue:
		p.bool(k.BoolValue)
	case *structpb.Value_NumberValue:
		return p.float(k.NumberValue)
	case *structpb.Value_StringValue:
		p.string([]byte(k.StringValue))
	case *structpb.Value_StructValue:
		return p.structObject(k.StructValue, depth)
	case *structpb.Value_ListValue:
		if f := tooDeep(depth); f != nil {
			return f
		}
		p.out = append(p.out, '[')
		for i, e := range k.ListValue.GetValues() {
			if i > 0 {
				p.out = append(p.out, ',')
			}
			if f := p.structValue(e, depth+1); f != nil {
				return f.at(i)
			}
		}
		p.out = append(p.out, ']')
	default:
		return &flaw{twin.NotDecodable, "", "a Value of no kind"}
	}
	return nil
}
