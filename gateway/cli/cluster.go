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
		Use: "status", Short: "Show nodes and partitions, what moves and what lags", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				s, err := doppelv1.NewFleetServiceClient(conn).GetStatus(ctx, &doppelv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				return o.printOne(cmd.OutOrStdout(), s, func(w io.Writer) { describeStatus(w, s) })
			})
		},
	}, clusterDrain(o))
	return cmd
}

func describeStatus(w io.Writer, s *doppelv1.Status) {
	fmt.Fprintf(w, "%d twins, %d online, %d open alerts, %.0f samples/s\n", s.GetTwins(), s.GetOnline(), s.GetOpenAlerts(), s.GetSamplesPerSecond())
	moving, unserved := 0, 0
	for _, p := range s.GetPartitions() {
		if p.GetMovingTo() != "" {
			moving++
		}
		if p.GetOwner() == "" {
			unserved++
		}
	}
	if moving > 0 {
		fmt.Fprintf(w, "%d of %d partitions move\n", moving, len(s.GetPartitions()))
	}
	if unserved > 0 {
		fmt.Fprintf(w, "%d of %d partitions have no owner\n", unserved, len(s.GetPartitions()))
	}
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tVERSION\tCAPACITY\tPARTITIONS\tUNACKNOWLEDGED\tSINCE")
		for _, n := range s.GetNodes() {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", n.GetId(), n.GetState(), orDash(n.GetAddress()), orDash(n.GetVersion()), n.GetCapacity(),
				n.GetPartitions(), n.GetUnacknowledged(), stamp(n.GetStartTime()))
		}
	})
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "PARTITION\tSTATE\tOWNER\tMOVING TO\tEPOCH\tTWINS\tINGEST LAG\tQUESTDB LAG")
		for _, p := range s.GetPartitions() {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", p.GetId(), orDash(p.GetState()), orDash(p.GetOwner()), orDash(p.GetMovingTo()), p.GetEpoch(),
				p.GetTwins(), p.GetIngestLag(), p.GetQuestdbLag())
		}
	})
}
