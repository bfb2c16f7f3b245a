package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// admit asks the guard whether a unary call may be made, and makes it.
func (a *API) admit(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	method, c := info.FullMethod, auth.CredentialsOf(ctx)
	ctx, err = a.guard.Enter(ctx, method, c)
	if rule, _ := auth.RuleOf(method); rule.Write && a.journal != nil && auth.Identified(ctx) {
		defer func() {
			panicked := recover()
			out := toStatus(err)
			if panicked != nil {
				out = status.Error(codes.Internal, "internal error")
			}
			a.journal.Record(context.WithoutCancel(ctx), auth.NewEntry(ctx, method, c.Address, req, status.Code(out), out))
			if panicked != nil {
				panic(panicked)
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	id := auth.FromContext(ctx)
	if r, ok := req.(*doppelv1.UpdateTwinRequest); ok && id.Role < auth.RoleOfTags {
		if whole, keys := tagsChanged(r); whole || len(keys) > 0 {
			return nil, auth.NeedRole(id, auth.RoleOfTags, "to change tags")
		}
	}
	if !id.Scoped() {
		return handler(ctx, req)
	}
	if r, ok := req.(*doppelv1.BatchGetTwinsRequest); ok {
		return a.batch(ctx, id, r, handler)
	}
	if err := a.narrow(ctx, id, req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// admitStream does the same for a stream, which ends when its identity ceases to count.
func (a *API) admitStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := auth.CredentialsOf(ss.Context())
	ctx, err := a.guard.Enter(ss.Context(), info.FullMethod, c)
	if err != nil {
		return err
	}
	ctx, done, err := a.guard.Watch(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	var guarded grpc.ServerStream = &guardedStream{ServerStream: ss, ctx: ctx}
	if id := auth.FromContext(ctx); id.Scoped() {
		guarded = &scopedStream{guardedStream: guardedStream{ServerStream: ss, ctx: ctx}, api: a, id: id, seen: make(map[string]struct{})}
	}
	err = handler(srv, guarded)
	if cause := context.Cause(ctx); status.Code(cause) == codes.Unauthenticated && ss.Context().Err() == nil {
		return cause
	}
	return err
}

// guardedStream is a stream with the context of an admitted call.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what grpc.ServerStream is
}

// Context implements grpc.ServerStream.
func (s *guardedStream) Context() context.Context { return s.ctx }

func isUnknown(err error) bool { return errors.Is(err, host.ErrUnknownDevice) }
