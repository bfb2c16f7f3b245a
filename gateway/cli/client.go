package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// callTimeout bounds a single call; a list takes as many as it has pages.
const callTimeout = 30 * time.Second

// retries lets single calls wait out a move of a partition: a node answers UNAVAILABLE meanwhile.
const retries = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.1s",
	"maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// connect opens the connection for one command. Nothing is dialled before the first call.
func (o *options) connect() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(o.addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return nil, usagef("--addr: %w", err)
	}
	return conn, nil
}

// call runs fn with a connection and a deadline.
func (o *options) call(cmd *cobra.Command, fn func(ctx context.Context, conn *grpc.ClientConn) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
	defer cancel()
	return fn(ctx, conn)
}

// watch runs stream until the command is interrupted. When the node goes away it comes back with the
// newest token, so that nothing is missed that the node still knows.
func (o *options) watch(cmd *cobra.Command, stream func(ctx context.Context, conn *grpc.ClientConn, token *string) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, stop := interrupted(cmd.Context())
	defer stop()
	var token string
	for {
		err := stream(ctx, conn, &token)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && err != io.EOF && (status.Code(err) != codes.Unavailable || token == ""): //nolint:errorlint // Recv returns it bare
			return err
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "doppel: the node ended the watch, resuming")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
