package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// commandTimeout is how long a device has by default.
	commandTimeout = 30 * time.Second
	// commandSlack is what the call has beyond that, so that the node says what became of the command.
	commandSlack = 5 * time.Second
	// commandFailed is the first status of a reply that is no success.
	commandFailed = 400
)

func commandCommand(o *options) *cobra.Command {
	req := &doppelv1.InvokeCommandRequest{}
	timeout := commandTimeout
	cmd := &cobra.Command{
		Use: "command ID NAME [JSON]", Short: "Send a command to a device and print its reply",
		Long: "Send a command to a device by MQTT and print its reply. The exit code is 1 if the device answers\n" +
			"with a status of 400 or more, and 4 if it does not answer in time.",
		Example: "  doppel command pump-001 ping\n" +
			"  doppel command pump-001 set '{\"speed\": 3}' --queue --timeout 10m",
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) < 2 || len(args) > 3 {
			return usagef("got %d arguments, want ID NAME [JSON]", len(args))
		}
		return nil
	}
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long the reply may take, at most 10m")
	cmd.Flags().BoolVar(&req.QueueIfOffline, "queue", false, "let the command wait for a device that is offline")
	cmd.Flags().StringVar(&req.IdempotencyKey, "key", "", "`KEY` of the command: given again within 10 minutes it gets the same reply (default: a new one)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Id, req.Name, req.Timeout = args[0], args[1], durationpb.New(timeout)
		if len(args) == 3 {
			req.Body = &structpb.Value{}
			if err := protojson.Unmarshal([]byte(args[2]), req.GetBody()); err != nil {
				return usagef("%q is not JSON: %w", args[2], err)
			}
		}
		if req.GetIdempotencyKey() == "" {
			req.IdempotencyKey = rand.Text() // the call is made again when a partition moves, the command is not
		}
		return o.callWithin(cmd, timeout+commandSlack, func(ctx context.Context, conn *grpc.ClientConn) error {
			reply, err := doppelv1.NewTwinServiceClient(conn).InvokeCommand(ctx, req)
			if err != nil {
				return err
			}
			if err := o.printOne(cmd.OutOrStdout(), reply, func(w io.Writer) { describeReply(w, reply) }); err != nil {
				return err
			}
			if reply.GetStatus() >= commandFailed {
				return fmt.Errorf("the device answered with status %d", reply.GetStatus())
			}
			return nil
		})
	}
	return cmd
}

func describeReply(w io.Writer, reply *doppelv1.InvokeCommandResponse) {
	columns(w, func(w io.Writer) {
		fmt.Fprintf(w, "Status\t%d\n", reply.GetStatus())
		if reply.GetBody() == nil {
			return
		}
		if b, err := toJSON(reply.GetBody()); err == nil {
			fmt.Fprintf(w, "Body\t%s\n", b)
		}
	})
}
