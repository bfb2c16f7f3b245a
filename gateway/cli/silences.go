package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func alertsSilence(o *options) *cobra.Command {
	var lasting time.Duration
	var comment string
	cmd := &cobra.Command{
		Use: "silence FILTER", Short: "Notify nobody of alerts that match a filter, for some time", Args: exactly("FILTER"),
		Example: `  doppel alerts silence 'device.startsWith("pump-") && rule == "hot-pump"' --for 2h -m "maintenance"`,
	}
	cmd.Flags().DurationVar(&lasting, "for", 0, "for how long, such as 2h (required)")
	cmd.Flags().StringVarP(&comment, "message", "m", "", "why, for others")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if lasting <= 0 {
			return usagef("--for: say for how long, such as 2h")
		}
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			s, err := doppelv1.NewAlertServiceClient(conn).SilenceAlerts(ctx, &doppelv1.SilenceAlertsRequest{
				Filter: args[0], Duration: durationpb.New(lasting), Comment: comment,
			})
			if err != nil {
				return err
			}
			return o.printOne(cmd.OutOrStdout(), s, func(w io.Writer) { o.listSilences(w, []*doppelv1.Silence{s}) })
		})
	}
	return cmd
}

func alertsSilences(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "silences", Short: "List the silences that have not ended", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				client := doppelv1.NewAlertServiceClient(conn)
				silences, _, err := pages(0, func(size int32, token string) ([]*doppelv1.Silence, string, int64, error) {
					r, err := client.ListSilences(ctx, &doppelv1.ListSilencesRequest{PageSize: size, PageToken: token})
					return r.GetSilences(), r.GetNextPageToken(), 0, err
				})
				if err != nil {
					return err
				}
				return printList(o, cmd.OutOrStdout(), silences, func(w io.Writer) { o.listSilences(w, silences) })
			})
		},
	}
}

func alertsUnsilence(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "unsilence ID", Short: "End a silence now", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				s, err := doppelv1.NewAlertServiceClient(conn).ExpireSilence(ctx, &doppelv1.ExpireSilenceRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return o.printOne(cmd.OutOrStdout(), s, func(w io.Writer) { fmt.Fprintln(w, s.GetId(), "ended") })
			})
		},
	}
}

func (o *options) listSilences(w io.Writer, silences []*doppelv1.Silence) {
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tENDS\tBY\tFILTER\tCOMMENT")
		for _, s := range silences {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.GetId(), o.when(s.GetEndTime()), orDash(s.GetCreatedBy()), s.GetFilter(), orDash(s.GetComment()))
		}
	})
}
