package api

import (
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxIDs bounds the ids of one request.
const maxIDs = 1000

// twinService serves reads of twins. What it does not define is UNIMPLEMENTED.
type twinService struct {
	doppelv1.UnimplementedTwinServiceServer
	twins   Twins
	past    Past
	history History // nil: there is none
	resets  Resets  // nil: nobody resets
	writes  Writes  // nil: nobody writes
	// commands nil: nobody sends any.
	commands Commands
	hub      *Hub
	filter   *filter.Env
}

// GetTwin returns one twin as it is now, or as it was.
func (s *twinService) GetTwin(ctx context.Context, req *doppelv1.GetTwinRequest) (*doppelv1.Twin, error) {
	if err := checkDevice("id", req.GetId()); err != nil {
		return nil, err
	}
	m, err := newMask(req.GetReadMask(), (*doppelv1.Twin)(nil))
	if err != nil {
		return nil, err
	}
	var t *doppelv1.Twin
	if req.GetAsOf() != nil {
		t, err = s.pastTwin(ctx, req)
	} else {
		t, err = s.twins.Twin(ctx, req.GetId())
	}
	if err != nil {
		return nil, err
	}
	m.prune(t.ProtoReflect())
	return t, nil
}

// BatchGetTwins returns those of the ids that exist, in the order asked for, and names the others.
func (s *twinService) BatchGetTwins(ctx context.Context, req *doppelv1.BatchGetTwinsRequest) (*doppelv1.BatchGetTwinsResponse, error) {
	if err := checkDevices("ids", req.GetIds()); err != nil {
		return nil, err
	}
	m, err := newMask(req.GetReadMask(), (*doppelv1.Twin)(nil))
	if err != nil {
		return nil, err
	}
	found, err := s.twins.Twins(ctx, req.GetIds())
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*doppelv1.Twin, len(found))
	for _, t := range found {
		byID[t.GetId()] = t
	}
	resp := &doppelv1.BatchGetTwinsResponse{}
	asked := make(map[string]struct{}, len(req.GetIds()))
	for _, id := range req.GetIds() {
		if _, again := asked[id]; again {
			continue
		}
		asked[id] = struct{}{}
		t, ok := byID[id]
		if !ok {
			resp.MissingIds = append(resp.MissingIds, id)
			continue
		}
		m.prune(t.ProtoReflect())
		resp.Twins = append(resp.Twins, t)
	}
	return resp, nil
}

// ListTwins returns one page of the twins that match.
func (s *twinService) ListTwins(ctx context.Context, req *doppelv1.ListTwinsRequest) (*doppelv1.ListTwinsResponse, error) {
	match, err := compileFilter(s.filter, req.GetFilter())
	if err != nil {
		return nil, err
	}
	m, err := newMask(req.GetReadMask(), (*doppelv1.Twin)(nil))
	if err != nil {
		return nil, err
	}
	o, err := parseOrder(req.GetOrderBy(), &doppelv1.Twin{})
	if err != nil {
		return nil, err
	}
	place, err := newPagePlace(o, req.GetFilter(), req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.twins.SelectTwins(ctx, &host.Query{Filter: match, Order: o, After: place.after, Limit: place.size})
	if err != nil {
		return nil, err
	}
	resp := &doppelv1.ListTwinsResponse{TotalSize: found.Count}
	for _, t := range found.Twins {
		if t == nil { // deleted since
			continue
		}
		m.prune(t.ProtoReflect())
		resp.Twins = append(resp.Twins, t)
	}
	if found.More {
		resp.NextPageToken = place.token(found.Keys[len(found.Keys)-1])
	}
	return resp, nil
}

// AggregateTwins counts twins in groups.
func (s *twinService) AggregateTwins(ctx context.Context, req *doppelv1.AggregateTwinsRequest) (*doppelv1.AggregateTwinsResponse, error) {
	match, err := compileFilter(s.filter, req.GetFilter())
	if err != nil {
		return nil, err
	}
	if _, err := selection.ParseGrouping(req); err != nil {
		return nil, badSelection(err)
	}
	return s.twins.AggregateTwins(ctx, match, req)
}

// each calls fn for every twin that matches, until it fails or ctx ends.
func (s *twinService) each(ctx context.Context, match filter.Filter, fn func(*doppelv1.Twin) error) error {
	var failed error
	err := s.twins.EachTwin(ctx, match, func(t *doppelv1.Twin) bool {
		if failed = ctx.Err(); failed == nil {
			failed = fn(t)
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

func checkDevice(field, id string) error {
	if id == "" {
		return invalid(field, "is required: the id of a device")
	}
	if !codec.ValidDevice([]byte(id)) {
		return invalid(field, "%q is not a device id: want 1-128 bytes of [A-Za-z0-9._:@-]", shorten(id))
	}
	return nil
}

func checkDevices(field string, ids []string) error {
	if len(ids) > maxIDs {
		return invalid(field, "more than %d ids", maxIDs)
	}
	for _, id := range ids {
		if err := checkDevice(field, id); err != nil {
			return err
		}
	}
	return nil
}

// shorten keeps a caller's own junk out of our answers and logs.
func shorten(s string) string {
	if len(s) > 140 {
		return s[:140] + "…"
	}
	return s
}
