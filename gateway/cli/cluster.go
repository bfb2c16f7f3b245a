package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func clusterCommand(o *options) *cobra.Command {
	cmd := Group("cluster", "Nodes and partitions")
	cmd.AddCommand(&cobra.Command{
		Use: "status", Short: "Show nodes and partitions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				s, err := doppelv1.NewFleetServiceClient(conn).GetStatus(ctx, &doppelv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				return o.printOne(cmd.OutOrStdout(), s, func(w io.Writer) { describeStatus(w, s) })
			})
		},
	})
	return cmd
}

func describeStatus(w io.Writer, s *doppelv1.Status) {
	fmt.Fprintf(w, "%d twins, %d online, %d open alerts, %.0f samples/s\n\n", s.GetTwins(), s.GetOnline(), s.GetOpenAlerts(), s.GetSamplesPerSecond())
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tVERSION\tPARTITIONS\tSINCE")
		for _, n := range s.GetNodes() {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", n.GetId(), n.GetState(), orDash(n.GetAddress()), n.GetVersion(), n.GetPartitions(), stamp(n.GetStartTime()))
		}
	})
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "PARTITION\tSTATE\tOWNER\tEPOCH\tTWINS\tQUESTDB LAG")
		for _, p := range s.GetPartitions() {
			fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%d\t%d\n", p.GetId(), p.GetState(), orDash(p.GetOwner()), p.GetEpoch(), p.GetTwins(), p.GetQuestdbLag())
		}
	})
}
