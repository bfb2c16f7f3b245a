package api

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxDesiredDepth is how deep a change of desired properties may be.
const maxDesiredDepth = 10

// Writes changes twins, wherever they are served.
type Writes interface {
	// Update returns the twin as it is then, when that is durable. host.ErrUnknownDevice, host.ErrConflict, a
	// *host.InvalidError.
	Update(ctx context.Context, u host.Update) (*doppelv1.Twin, error)
	// Delete returns when the twin is gone for good. host.ErrUnknownDevice, host.ErrConflict.
	Delete(ctx context.Context, id, etag string) error
}

// UpdateTwin changes desired properties and tags and returns the twin as it is then.
func (s *twinService) UpdateTwin(ctx context.Context, req *doppelv1.UpdateTwinRequest) (*doppelv1.Twin, error) {
	if s.writes == nil {
		return s.UnimplementedTwinServiceServer.UpdateTwin(ctx, req)
	}
	if req.GetTwin() == nil {
		return nil, invalid("twin", "is required")
	}
	if err := checkDevice("twin.id", req.GetTwin().GetId()); err != nil {
		return nil, err
	}
	u, err := updateOf(req)
	if err != nil {
		return nil, err
	}
	return s.writes.Update(ctx, u)
}

// DeleteTwin deletes a twin.
func (s *twinService) DeleteTwin(ctx context.Context, req *doppelv1.DeleteTwinRequest) (*emptypb.Empty, error) {
	if s.writes == nil {
		return s.UnimplementedTwinServiceServer.DeleteTwin(ctx, req)
	}
	if err := checkDevice("id", req.GetId()); err != nil {
		return nil, err
	}
	if err := s.writes.Delete(ctx, req.GetId(), req.GetEtag()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// updateOf is what a request asks for. Without a mask the fields that are set count; an etag stands in the
// request or in the twin that was read.
func updateOf(req *doppelv1.UpdateTwinRequest) (u host.Update, err error) {
	t := req.GetTwin()
	u = host.Update{Device: t.GetId(), Etag: req.GetEtag(), AllowMissing: req.GetAllowMissing()}
	if u.Etag == "" {
		u.Etag = t.GetEtag()
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) > maxMaskPaths {
		return u, invalid("update_mask", "more than %d paths", maxMaskPaths)
	}
	if len(paths) == 0 {
		if t.GetDesired() != nil {
			paths = append(paths, "desired")
		}
		if len(t.GetTags()) > 0 {
			paths = append(paths, "tags")
		}
	}
	if t.GetDesired() != nil {
		if err := checkValue(structpb.NewStructValue(t.GetDesired()), 1); err != nil {
			return u, err
		}
	}
	patch := map[string]any{}
	for _, path := range paths {
		field, key, below := strings.Cut(path, ".")
		switch {
		case below && key == "":
			return u, invalid("update_mask", "%q: names nothing behind the dot", shorten(path))
		case path == "desired":
			overlay(patch, t.GetDesired().AsMap())
		case field == "desired":
			if err := member(patch, t.GetDesired(), path, key); err != nil {
				return u, err
			}
		case path == "tags":
			u.ReplaceTags = true
			for key, value := range t.GetTags() {
				setTag(&u, key, value)
			}
		case field == "tags":
			if value, ok := t.GetTags()[key]; ok {
				setTag(&u, key, value)
			} else {
				u.RemovedTags = append(u.RemovedTags, key)
			}
		default:
			return u, invalid("update_mask", "%q: people write desired, desired.MEMBER, tags and tags.KEY only", shorten(path))
		}
	}
	if len(patch) > 0 {
		if u.Desired, err = json.Marshal(patch); err != nil {
			return u, invalid("twin.desired", "is no JSON: %v", err)
		}
	}
	return u, nil
}

func setTag(u *host.Update, key, value string) {
	if u.Tags == nil {
		u.Tags = make(map[string]string)
	}
	u.Tags[key] = value
}

// member puts one member of desired into a patch: as it is in the twin, or to be deleted if it is not there.
func member(patch map[string]any, desired *structpb.Struct, path, below string) error {
	parts := strings.Split(below, ".")
	if len(parts) > maxDesiredDepth {
		return invalid("update_mask", "%q: more than %d levels", shorten(path), maxDesiredDepth)
	}
	var value any
	at := desired
	for i, part := range parts {
		if part == "" {
			return invalid("update_mask", "%q: an empty name", shorten(path))
		}
		name := named(at, part)
		v, there := at.GetFields()[name]
		parts[i] = name
		if i == len(parts)-1 {
			if there {
				value = v.AsInterface()
			}
			break
		}
		at = v.GetStructValue()
	}
	for _, part := range parts[:len(parts)-1] {
		inner, ok := patch[part].(map[string]any)
		if !ok {
			inner = map[string]any{}
			patch[part] = inner
		}
		patch = inner
	}
	patch[parts[len(parts)-1]] = value
	return nil
}

// named is the member that a part of a path means. JSON writes the paths of masks in lowerCamelCase, and what
// reads them makes snake_case of that, also of names that are not ours: "maxRate" comes as "max_rate".
func named(s *structpb.Struct, part string) string {
	if _, ok := s.GetFields()[part]; ok {
		return part
	}
	found := ""
	for name := range s.GetFields() {
		if snake(name) == part {
			if found != "" {
				return part
			}
			found = name
		}
	}
	if found == "" {
		return part
	}
	return found
}

func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// overlay adds a merge patch to another one.
func overlay(patch, with map[string]any) {
	for key, v := range with {
		inner, isObject := v.(map[string]any)
		had, both := patch[key].(map[string]any)
		if isObject && both {
			overlay(had, inner)
			continue
		}
		patch[key] = v
	}
}

// checkValue refuses what is no JSON, or too deep.
func checkValue(v *structpb.Value, level int) error {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		for _, e := range k.StructValue.GetFields() {
			if err := checkValue(e, level+1); err != nil {
				return err
			}
		}
	case *structpb.Value_ListValue:
		for _, e := range k.ListValue.GetValues() {
			if err := checkValue(e, level+1); err != nil {
				return err
			}
		}
	case *structpb.Value_NumberValue:
		if math.IsNaN(k.NumberValue) || math.IsInf(k.NumberValue, 0) {
			return invalid("twin.desired", "has the number %v, which is none in JSON", k.NumberValue)
		}
		return nil
	case nil:
		return invalid("twin.desired", "has a value of no kind")
	default:
		return nil
	}
	if level > maxDesiredDepth {
		return invalid("twin.desired", "has %d levels or more, at most %d are allowed", level, maxDesiredDepth)
	}
	return nil
}
