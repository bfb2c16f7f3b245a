package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

const (
	// callTimeout bounds a single call; a list takes as many as it has pages.
	callTimeout = 30 * time.Second
	// A node that is silent for pingAfter is asked whether it is there, and is left when it does not
	// say so within pingTimeout. Nodes refuse more frequent pings.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// connect opens the connection for one command: to the first node of --addr that answers, and to
// another one when that goes away. Nothing is dialled before the first call.
func (o *options) connect() (*grpc.ClientConn, error) {
	opts, err := o.who.DialOptions(o.addr)
	if err != nil {
		return nil, &usageError{err}
	}
	opts = append(opts,
		grpc.WithUnaryInterceptor(retryUnary),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
	)
	target := o.addr
	if nodes := strings.Split(o.addr, ","); len(nodes) > 1 {
		var state resolver.State
		for _, n := range nodes {
			if n = strings.TrimSpace(n); n != "" {
				state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: n, ServerName: n}}})
			}
		}
		nodes := manual.NewBuilderWithScheme("nodes")
		nodes.InitialState(state)
		target, opts = nodes.Scheme()+":///", append(opts, grpc.WithResolvers(nodes))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, usagef("--addr: %w", err)
	}
	return conn, nil
}

// call runs fn with a connection and a deadline.
func (o *options) call(cmd *cobra.Command, fn func(ctx context.Context, conn *grpc.ClientConn) error) error {
	return o.callWithin(cmd, callTimeout, fn)
}

func (o *options) callWithin(cmd *cobra.Command, limit time.Duration, fn func(ctx context.Context, conn *grpc.ClientConn) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	return fn(ctx, conn)
}

// watch runs stream until the command is interrupted. When the node goes away it comes back, at another
// node if it can, with the newest token, so that nothing is missed that is still known.
func (o *options) watch(cmd *cobra.Command, stream func(ctx context.Context, conn *grpc.ClientConn, token *string) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, stop := interrupted(cmd.Context())
	defer stop()
	var token string
	for began := time.Now(); ; {
		err := stream(ctx, conn, &token)
		if ctx.Err() != nil {
			return nil
		}
		wait, told := retryDelay(err)
		if err != io.EOF && !resumable(err, token, told && time.Since(began) < callTimeout) { //nolint:errorlint // Recv returns it bare
			return err
		}
		if token != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "doppel: the node ended the watch, resuming")
		}
		if sleep(ctx, max(wait, 500*time.Millisecond)) != nil {
			return nil
		}
	}
}

// resumable says whether a watch that ended with err is worth another attempt: one that had begun, or
// one that was asked to wait.
func resumable(err error, token string, asked bool) bool {
	return status.Code(err) == codes.Unavailable && (token != "" || asked)
}

var errNoNode = errors.New("no address of a node")

// checkAddr refuses a list of nodes that names none.
func checkAddr(addr string) error {
	named := func(s string) bool { return strings.TrimSpace(s) != "" }
	if !slices.ContainsFunc(strings.Split(addr, ","), named) {
		return usagef("--addr: %w", errNoNode)
	}
	return nil
}
