package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// An identity that is bound to tags meets a fleet that has only the twins with these tags. That is done
// here and nowhere else, to the requests: a filter gets the tags besides what it asks for, a twin or an
// alert that is named is looked at first. What is not mentioned here such an identity may not call.
//
// Between the look and a write another may change the twin's tags; tags are changed by admins.

// narrow makes of a request one about the twins that id sees, or says why it is about others.
func (a *API) narrow(ctx context.Context, id *auth.Identity, req any) error {
	switch r := req.(type) {
	case *doppelv1.UpdateTwinRequest:
		return a.narrowUpdate(ctx, id, r)
	case *doppelv1.GetTwinRequest, *doppelv1.DeleteTwinRequest, *doppelv1.InvokeCommandRequest, *doppelv1.GetHistoryRequest,
		*doppelv1.ReplayTwinRequest, *doppelv1.ResetTwinRequest:
		one, _ := r.(interface{ GetId() string })
		return a.visible(ctx, id, one.GetId())
	case *doppelv1.GetAlertRequest, *doppelv1.AcknowledgeAlertRequest, *doppelv1.ExplainAlertRequest:
		one, _ := r.(interface{ GetId() string })
		return a.visibleAlert(ctx, id, one.GetId())
	case *doppelv1.BatchGetTwinsRequest:
		return nil // see batch
	case *doppelv1.ListTwinsRequest:
		return narrowFilter(id, a.twins.filter, &r.Filter)
	case *doppelv1.AggregateTwinsRequest:
		return narrowFilter(id, a.twins.filter, &r.Filter)
	case *doppelv1.WatchTwinsRequest:
		return narrowFilter(id, a.twins.filter, &r.Filter)
	case *doppelv1.ListAlertsRequest:
		return narrowFilter(id, a.alerts.filter, &r.Filter)
	case *doppelv1.WatchAlertsRequest:
		return narrowFilter(id, a.alerts.filter, &r.Filter)
	case *doppelv1.SilenceAlertsRequest:
		if strings.TrimSpace(r.GetFilter()) == "" {
			return nil // which is refused
		}
		return narrowFilter(id, a.alerts.filter, &r.Filter)
	case *doppelv1.ListRulesRequest, *doppelv1.GetRuleRequest,
		*grpc_reflection_v1.ServerReflectionRequest, *grpc_reflection_v1alpha.ServerReflectionRequest: //nolint:staticcheck // older clients send it
		return nil // nothing of a twin
	}
	return auth.OutOfScope(id, "this call is not about single twins")
}

// narrowFilter adds the tags of id to a filter. What a caller writes is compiled alone first, so that it
// cannot close the parenthesis around it, and is told where it is wrong in what it wrote.
func narrowFilter(id *auth.Identity, env *filter.Env, expr *string) error {
	if _, err := compileFilter(env, *expr); err != nil {
		return err
	}
	var b strings.Builder
	if strings.TrimSpace(*expr) != "" {
		b.WriteString("(" + *expr + "\n)") // the line ends a comment
	}
	for _, key := range slices.Sorted(maps.Keys(id.Tags)) {
		if b.Len() > 0 {
			b.WriteString(" && ")
		}
		b.WriteString("tags[" + strconv.Quote(key) + "] == " + strconv.Quote(id.Tags[key]))
	}
	*expr = b.String()
	return nil
}

// visible is nil if id sees a twin; one that it does not see is as one that does not exist.
func (a *API) visible(ctx context.Context, id *auth.Identity, device string) error {
	if err := checkDevice("id", device); err != nil {
		return err
	}
	t, err := a.twins.twins.Twin(ctx, device)
	if err != nil {
		return err
	}
	if !id.Sees(t.GetTags()) {
		return fmt.Errorf("twin %q: %w", device, host.ErrUnknownDevice)
	}
	return nil
}

func (a *API) visibleAlert(ctx context.Context, id *auth.Identity, alert string) error {
	al, err := a.alerts.GetAlert(ctx, &doppelv1.GetAlertRequest{Id: alert})
	if err != nil {
		return err
	}
	if !id.Sees(al.GetTags()) {
		return fmt.Errorf("alert %q: %w", alert, host.ErrUnknownAlert)
	}
	return nil
}

// narrowUpdate lets a twin neither leave what id sees nor come into it, but for a new one.
func (a *API) narrowUpdate(ctx context.Context, id *auth.Identity, r *doppelv1.UpdateTwinRequest) error {
	tags := r.GetTwin().GetTags()
	if whole, keys := tagsChanged(r); whole && !id.Sees(tags) {
		return auth.OutOfScope(id, "the tags it is bound to must stay on the twin")
	} else if !whole {
		for _, key := range keys {
			if want, bound := id.Tags[key]; bound && tags[key] != want {
				return auth.OutOfScope(id, fmt.Sprintf("tag %q must stay as it is", shorten(key)))
			}
		}
	}
	err := a.visible(ctx, id, r.GetTwin().GetId())
	if err != nil && r.GetAllowMissing() && id.Sees(tags) && isUnknown(err) {
		if _, there := a.twins.twins.Twin(ctx, r.GetTwin().GetId()); isUnknown(there) {
			return nil
		}
	}
	return err
}

// tagsChanged says whether an update replaces all tags, or else which it changes.
func tagsChanged(r *doppelv1.UpdateTwinRequest) (whole bool, keys []string) {
	paths := r.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return len(r.GetTwin().GetTags()) > 0, nil
	}
	for _, path := range paths {
		if path == "tags" {
			return true, nil
		}
		if key, ok := strings.CutPrefix(path, "tags."); ok {
			keys = append(keys, key)
		}
	}
	return false, keys
}

// batch answers BatchGetTwins: twins that id does not see are missing.
func (a *API) batch(ctx context.Context, id *auth.Identity, req *doppelv1.BatchGetTwinsRequest, handler grpc.UnaryHandler) (any, error) {
	if err := checkDevices("ids", req.GetIds()); err != nil {
		return nil, err
	}
	found, err := a.twins.twins.Twins(ctx, req.GetIds())
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(found))
	for _, t := range found {
		seen[t.GetId()] = id.Sees(t.GetTags())
	}
	all := unique(req.GetIds())
	req.Ids = slices.DeleteFunc(slices.Clone(all), func(d string) bool { return !seen[d] })
	out, err := handler(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := out.(*doppelv1.BatchGetTwinsResponse)
	if !ok {
		return nil, errNoStream
	}
	gone := make(map[string]bool)
	for _, d := range resp.GetMissingIds() {
		gone[d] = true
	}
	resp.MissingIds = slices.DeleteFunc(all, func(d string) bool { return seen[d] && !gone[d] })
	return resp, nil
}

// scopedStream is a stream to an identity that is bound to tags.
type scopedStream struct {
	guardedStream
	api *API
	id  *auth.Identity
	// seen are the twins that were sent: of others it is not told that they are gone.
	seen map[string]struct{}
}

// RecvMsg implements grpc.ServerStream.
func (s *scopedStream) RecvMsg(m any) error {
	if err := s.guardedStream.RecvMsg(m); err != nil {
		return err
	}
	return s.api.narrow(s.ctx, s.id, m)
}

// SendMsg implements grpc.ServerStream.
func (s *scopedStream) SendMsg(m any) error {
	if r, ok := m.(*doppelv1.WatchTwinsResponse); ok {
		s.look(r)
	}
	return s.guardedStream.SendMsg(m)
}

func (s *scopedStream) look(r *doppelv1.WatchTwinsResponse) {
	switch e := r.GetEvent().(type) {
	case *doppelv1.WatchTwinsResponse_Snapshot:
		s.seen[e.Snapshot.GetId()] = struct{}{}
	case *doppelv1.WatchTwinsResponse_Changed:
		s.seen[e.Changed.GetId()] = struct{}{}
	case *doppelv1.WatchTwinsResponse_DeletedId:
		if _, ok := s.seen[e.DeletedId]; !ok {
			r.Event = &doppelv1.WatchTwinsResponse_Heartbeat{Heartbeat: &emptypb.Empty{}} // the token matters
		}
		delete(s.seen, e.DeletedId)
	}
}
