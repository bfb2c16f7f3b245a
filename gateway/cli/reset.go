package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func twinReset(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "reset ID", Short: "Accept a device's numbering anew and lift its quarantine", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				t, err := doppelv1.NewTwinServiceClient(conn).ResetTwin(ctx, &doppelv1.ResetTwinRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return o.printOne(cmd.OutOrStdout(), t, func(w io.Writer) { describeTwin(w, t) })
			})
		},
	}
}
