package web

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// parseQuery fills the fields of a request from query parameters, as google.api.http maps them:
// JSON or proto names, repeated ones given again and again. (ids and read_mask also take commas.)
func parseQuery(q url.Values, msg proto.Message) error {
	m := msg.ProtoReflect()
	for name, values := range q {
		f := m.Descriptor().Fields().ByJSONName(name)
		if f == nil {
			f = m.Descriptor().Fields().ByName(protoreflect.Name(name))
		}
		if f == nil {
			return badQuery(name, "no such parameter")
		}
		if err := setField(m, f, values); err != nil {
			return badQuery(string(f.Name()), err.Error())
		}
	}
	return nil
}

func badQuery(field, text string) error {
	st := status.New(codes.InvalidArgument, field+": "+text)
	d, err := st.WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: text}},
	})
	if err != nil {
		return st.Err()
	}
	return d.Err()
}

func setField(m protoreflect.Message, f protoreflect.FieldDescriptor, values []string) error {
	if f.IsList() {
		list := m.Mutable(f).List()
		for _, v := range values {
			for one := range strings.SplitSeq(v, ",") {
				list.Append(protoreflect.ValueOfString(one))
			}
		}
		return nil
	}
	if f.Message() != nil && f.Message().FullName() == "google.protobuf.FieldMask" {
		mask := &fieldmaskpb.FieldMask{}
		for _, v := range values {
			mask.Paths = append(mask.Paths, strings.Split(v, ",")...)
		}
		m.Set(f, protoreflect.ValueOfMessage(mask.ProtoReflect()))
		return nil
	}
	if len(values) != 1 {
		return fmt.Errorf("given %d times", len(values))
	}
	v := values[0]
	switch f.Kind() {
	case protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString(v))
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is not a bool", v)
		}
		m.Set(f, protoreflect.ValueOfBool(b))
	case protoreflect.EnumKind:
		e := f.Enum().Values().ByName(protoreflect.Name(v))
		if e == nil {
			n, err := strconv.ParseInt(v, 10, 32)
			if err != nil {
				return fmt.Errorf("%q is no %s", v, f.Enum().Name())
			}
			m.Set(f, protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)))
			return nil
		}
		m.Set(f, protoreflect.ValueOfEnum(e.Number()))
	case protoreflect.MessageKind: // a duration
		if err := protojson.Unmarshal([]byte(strconv.Quote(v)), m.Mutable(f).Message().Interface()); err != nil {
			return fmt.Errorf("%q is not a %s", v, f.Message().Name())
		}
	default:
		return errors.New("can't be given in a query")
	}
	return nil
}
