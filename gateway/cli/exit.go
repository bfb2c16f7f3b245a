package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes of every command.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
)

// Execute runs root on the process's arguments, reports an error on standard error and returns the
// exit code. Errors that wrap usage are the user's.
func Execute(root *cobra.Command, usage error) int {
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	code := exitCode(err, usage)
	fmt.Fprintf(os.Stderr, "doppel: %s\n", strings.TrimPrefix(message(err), usage.Error()+": "))
	if code == exitUsage {
		fmt.Fprintf(os.Stderr, "See %q.\n", cmd.CommandPath()+" --help")
	}
	return code
}

func exitCode(err, usage error) int {
	var own interface{ ExitCode() int }
	var wrong *usageError
	switch {
	case errors.As(err, &own):
		return own.ExitCode()
	case errors.As(err, &wrong), errors.Is(err, usage), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	}
	st, ok := status.FromError(err)
	if !ok {
		return exitFailed
	}
	switch st.Code() {
	case codes.NotFound:
		return exitNotFound
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnavailable
	case codes.InvalidArgument:
		return exitUsage
	default:
		return exitFailed
	}
}

// message is an error as people read it: of a gRPC status only the text.
func message(err error) string {
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown {
		return st.Message()
	}
	return err.Error()
}
