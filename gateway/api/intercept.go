package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// unary is around every unary call: it maps errors, catches panics and logs.
func (a *API) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	a.moderation.calls.Add(1)
	defer func() {
		err = a.finish(ctx, info.FullMethod, start, recover(), err)
		if err != nil {
			resp = nil
		}
	}()
	ctx, cancel := early(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, err // nobody waits any more, so nothing is begun
	}
	return a.admit(ctx, req, info, handler)
}

// answerWithin is how long before a call's deadline its handler has to be done, or an eighth of the time
// there is: at the deadline itself the stream is reset, and nothing said any more of what took so long.
const answerWithin = 250 * time.Millisecond

func early(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, bound := ctx.Deadline()
	if !bound {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(answerWithin, time.Until(deadline)/8)))
}

// stream is around every streaming call.
func (a *API) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	defer func() { err = a.finish(ss.Context(), info.FullMethod, start, recover(), err) }()
	return a.admitStream(srv, ss, info, handler)
}

// finish turns what a handler left behind into the status of its call.
func (a *API) finish(ctx context.Context, method string, start time.Time, panicked any, err error) error {
	if panicked != nil {
		a.log.ErrorContext(ctx, "rpc panicked", "method", method, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	}
	out := toStatus(err)
	code := status.Code(out)
	level := slog.LevelDebug
	if code == codes.Internal || code == codes.Unknown {
		level = slog.LevelError
	}
	if a.log.Enabled(ctx, level) {
		a.log.Log(ctx, level, "rpc", "method", method, "code", code.String(), "duration", time.Since(start), "error", err)
	}
	return out
}

// local runs a watch without a connection, through the same interceptor.
func local[Q, M any](ctx context.Context, a *API, method string, req *Q, send func(*M) error, watch func(*Q, grpc.ServerStreamingServer[M]) error) error {
	ss := &localStream[M]{ctx: ctx, req: req, send: send}
	info := &grpc.StreamServerInfo{FullMethod: method, IsServerStream: true}
	//nolint:contextcheck // the stream carries it
	return a.stream(a, ss, info, func(_ any, s grpc.ServerStream) error {
		in := new(Q)
		if err := s.RecvMsg(in); err != nil {
			return err
		}
		return watch(in, &grpc.GenericServerStream[Q, M]{ServerStream: s})
	})
}

var errNoStream = errors.New("not a stream of this type")

// localStream is the stream of a watch that runs in process.
type localStream[M any] struct {
	ctx  context.Context //nolint:containedctx // what grpc.ServerStream is
	req  any             // the only one that comes
	send func(*M) error
}

func (s *localStream[M]) Context() context.Context     { return s.ctx }
func (s *localStream[M]) SetHeader(metadata.MD) error  { return nil }
func (s *localStream[M]) SendHeader(metadata.MD) error { return nil }
func (s *localStream[M]) SetTrailer(metadata.MD)       {}

// RecvMsg gives the request, a copy of the caller's.
func (s *localStream[M]) RecvMsg(m any) error {
	in, isProto := m.(proto.Message)
	req, ok := s.req.(proto.Message)
	switch {
	case s.req == nil:
		return io.EOF
	case !isProto || !ok:
		return errNoStream
	}
	proto.Merge(in, req)
	s.req = nil
	return nil
}

func (s *localStream[M]) SendMsg(m any) error {
	if msg, ok := m.(*M); ok {
		return s.send(msg)
	}
	return errNoStream
}
