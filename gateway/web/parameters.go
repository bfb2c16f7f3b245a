package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

const fieldMaskName = "google.protobuf.FieldMask"

// parameters are the query parameters of a request, checked and as the transcoder takes them. It takes a field
// mask for JSON, where paths are in lowerCamelCase, so that many a tag, metric or property cannot be named;
// spelt out as a list, paths are taken as they are.
func (r *route) parameters(q url.Values) (url.Values, error) {
	out := make(url.Values, len(q))
	for name, values := range q {
		first, _, nested := strings.Cut(name, ".")
		f := r.field(first)
		switch {
		case f == nil:
			return nil, badQuery(name, "no such parameter")
		case nested:
			out[name] = values
		case f.Message() != nil && f.Message().FullName() == fieldMaskName:
			for _, v := range values {
				for path := range strings.SplitSeq(v, ",") {
					if path = strings.TrimSpace(path); path != "" {
						out.Add(name+".paths", path)
					}
				}
			}
		default:
			for _, v := range values {
				if err := r.checkParameter(f, v); err != nil {
					return nil, badQuery(string(f.Name()), err.Error())
				}
			}
			out[name] = values
		}
	}
	return out, nil
}

// field is a field of the request by its JSON or its proto name; nil: it has none of that name.
func (r *route) field(name string) protoreflect.FieldDescriptor {
	if f := r.request.Fields().ByJSONName(name); f != nil {
		return f
	}
	return r.request.Fields().ByName(protoreflect.Name(name))
}

// checkParameter refuses a value that the field cannot have, as far as a text tells.
func (r *route) checkParameter(f protoreflect.FieldDescriptor, v string) error {
	if f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind || f.IsMap() {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%q is no text", v)
	}
	if f.Kind() == protoreflect.BoolKind {
		text = []byte(v)
	}
	if f.IsList() {
		text = fmt.Appendf(nil, "[%s]", text)
	}
	if protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", f.JSONName(), text), dynamicpb.NewMessage(r.request)) != nil {
		return fmt.Errorf("%q is not %s", v, kindFor(f))
	}
	return nil
}

// kindFor says what a field takes.
func kindFor(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Enum() != nil:
		return "one of " + string(f.Enum().Name())
	case f.Message() == nil:
		return "of type " + f.Kind().String()
	case f.Message().FullName() == "google.protobuf.Duration":
		return "a duration in seconds, such as 30s or 0.5s"
	case f.Message().FullName() == "google.protobuf.Timestamp":
		return "an RFC 3339 time, such as 2026-11-22T10:00:00Z"
	default:
		return "a " + string(f.Message().Name())
	}
}
