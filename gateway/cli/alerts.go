package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func alertsCommand(o *options) *cobra.Command {
	cmd := Group("alerts", "List, follow, acknowledge, silence and explain alerts")
	cmd.AddCommand(alertsList(o), alertsWatch(o), alertsAck(o), alertsExplain(o), alertsSilence(o), alertsSilences(o), alertsUnsilence(o))
	return cmd
}

func alertsList(o *options) *cobra.Command {
	var filter, orderBy string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List open alerts and those resolved within 24 hours, newest first", Args: cobra.NoArgs,
		Example: `  doppel alerts list --filter 'state == "FIRING" && device.startsWith("pump-")'`,
	}
	cmd.Flags().StringVar(&filter, "filter", "", "CEL `EXPR` over the fields of Alert")
	cmd.Flags().StringVar(&orderBy, "order-by", "", "`FIELD`, or \"FIELD desc\"")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			client := doppelv1.NewAlertServiceClient(conn)
			alerts, _, err := pages(limit, func(size int32, token string) ([]*doppelv1.Alert, string, int64, error) {
				r, err := client.ListAlerts(ctx, &doppelv1.ListAlertsRequest{Filter: filter, OrderBy: orderBy, PageSize: size, PageToken: token})
				return r.GetAlerts(), r.GetNextPageToken(), 0, err
			})
			if err != nil {
				return err
			}
			return printList(o, cmd.OutOrStdout(), alerts, func(w io.Writer) { o.listAlerts(w, alerts) })
		})
	}
	return cmd
}

func alertsWatch(o *options) *cobra.Command {
	var req doppelv1.WatchAlertsRequest
	var severity string
	cmd := &cobra.Command{
		Use: "watch [DEVICE...]", Short: "Follow alerts: those open now, then every transition",
	}
	cmd.Flags().StringVar(&req.Filter, "filter", "", "CEL `EXPR` over the fields of Alert")
	cmd.Flags().StringVar(&severity, "min-severity", "", "info, warning or critical")
	cmd.Flags().BoolVar(&req.IncludePending, "include-pending", false, "also alerts that do not fire yet")
	cmd.RunE = func(cmd *cobra.Command, devices []string) error {
		switch severity {
		case "":
		case "info", "warning", "critical":
			req.MinSeverity = map[string]doppelv1.Severity{
				"info": doppelv1.Severity_INFO, "warning": doppelv1.Severity_WARNING, "critical": doppelv1.Severity_CRITICAL,
			}[severity]
		default:
			return usagef("--min-severity: %q is not info, warning or critical", severity)
		}
		req.Devices = devices
		return o.watch(cmd, func(ctx context.Context, conn *grpc.ClientConn, token *string) error {
			req.ResumeToken = *token
			s, err := doppelv1.NewAlertServiceClient(conn).WatchAlerts(ctx, &req)
			if err != nil {
				return err
			}
			for {
				ev, err := s.Recv()
				if err != nil {
					return err
				}
				*token = ev.GetResumeToken()
				if err := o.printEvent(cmd.OutOrStdout(), ev, alertEventLine(ev)); err != nil {
					return err
				}
			}
		})
	}
	return cmd
}

func alertEventLine(ev *doppelv1.WatchAlertsResponse) string {
	a := ev.GetSnapshot()
	if a == nil {
		a = ev.GetTransition()
	}
	switch {
	case a != nil:
		return fmt.Sprintf("%s  %-8s  %-8s  %-24s  %-16s  %s", clock(a.GetUpdateTime()), a.GetState(), a.GetSeverity(), a.GetDevice(), a.GetRule(), a.GetReason()+alertMarks(a))
	case ev.GetGap() != nil:
		return fmt.Sprintf("missed %d transitions (%s); open alerts follow", ev.GetGap().GetMissed(), ev.GetGap().GetReason())
	}
	return ""
}

func (o *options) listAlerts(w io.Writer, alerts []*doppelv1.Alert) {
	columns(w, func(w io.Writer) {
		fmt.Fprint(w, "ID\tSTATE\tSEVERITY\tDEVICE\tRULE\tMETRIC\tSINCE\tREASON")
		if o.output == "wide" {
			fmt.Fprint(w, "\tVALUE\tSCORE\tMEAN\tSTDDEV\tBOOT\tSEQ\tRESOLVED")
		}
		fmt.Fprintln(w)
		for _, a := range alerts {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", a.GetId(), a.GetState(), a.GetSeverity(), a.GetDevice(), a.GetRule(),
				orDash(a.GetMetric()), o.when(a.GetCreateTime()), a.GetReason()+alertMarks(a))
			if o.output == "wide" {
				fmt.Fprintf(w, "\t%.6g\t%.3g\t%.6g\t%.4g\t%d\t%d\t%s", a.GetValue(), a.GetScore(), a.GetBaselineMean(),
					a.GetBaselineStddev(), a.GetBoot(), a.GetSeq(), o.when(a.GetResolveTime()))
			}
			fmt.Fprintln(w)
		}
	})
}
