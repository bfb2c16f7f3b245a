package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func twinCommand(o *options) *cobra.Command {
	cmd := Group("twin", "Read, watch and change twins")
	cmd.AddCommand(
		twinGet(o), twinList(o), twinCount(o), twinWatch(o), twinReset(o), twinHistory(o),
		twinSetDesired(o), twinSetTags(o), twinTag(o), twinImport(o), twinDelete(o),
	)
	return cmd
}

func twinGet(o *options) *cobra.Command {
	var at moment
	cmd := &cobra.Command{Use: "get ID", Short: "Show one twin, as it is or as it was", Args: exactly("ID")}
	at.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &doppelv1.GetTwinRequest{Id: args[0]}
		past, err := at.set(cmd, req)
		if err != nil {
			return err
		}
		call := o.call
		if past {
			call = o.readLog
		}
		return call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			t, err := doppelv1.NewTwinServiceClient(conn).GetTwin(ctx, req)
			if err != nil {
				return err
			}
			return o.printOne(cmd.OutOrStdout(), t, func(w io.Writer) { describeTwin(w, t) })
		})
	}
	return cmd
}

func twinList(o *options) *cobra.Command {
	var filter, orderBy string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List twins", Args: cobra.NoArgs,
		Example: `  doppel twin list --filter 'online && metrics["temperature"].value > 80' --order-by 'last_seen desc'`,
	}
	cmd.Flags().StringVar(&filter, "filter", "", "CEL `EXPR` over the fields of Twin")
	cmd.Flags().StringVar(&orderBy, "order-by", "", "`FIELD`, or \"FIELD desc\"")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			client := doppelv1.NewTwinServiceClient(conn)
			twins, total, err := pages(limit, func(size int32, token string) ([]*doppelv1.Twin, string, int64, error) {
				r, err := client.ListTwins(ctx, &doppelv1.ListTwinsRequest{Filter: filter, OrderBy: orderBy, PageSize: size, PageToken: token})
				return r.GetTwins(), r.GetNextPageToken(), r.GetTotalSize(), err
			})
			if err != nil {
				return err
			}
			if err := printList(o, cmd.OutOrStdout(), twins, func(w io.Writer) { o.listTwins(w, twins) }); err != nil {
				return err
			}
			if int64(len(twins)) < total {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d twins; --limit 0 shows all\n", len(twins), total)
			}
			return nil
		})
	}
	return cmd
}

// pages reads pages until limit (0: none) or the end.
func pages[T any](limit int, page func(size int32, token string) ([]T, string, int64, error)) (all []T, total int64, err error) {
	const most = 1000
	for token := ""; ; {
		size := most
		if limit > 0 {
			size = min(most, limit-len(all))
		}
		part, next, n, err := page(int32(size), token)
		if err != nil {
			return nil, 0, err
		}
		all, total, token = append(all, part...), n, next
		if token == "" || (limit > 0 && len(all) >= limit) {
			return all, total, nil
		}
	}
}

func twinWatch(o *options) *cobra.Command {
	var filter string
	cmd := &cobra.Command{
		Use: "watch [ID...]", Short: "Follow twins: what they are, then every change",
	}
	cmd.Flags().StringVar(&filter, "filter", "", "CEL `EXPR` over the fields of Twin")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		return o.watch(cmd, func(ctx context.Context, conn *grpc.ClientConn, token *string) error {
			s, err := doppelv1.NewTwinServiceClient(conn).WatchTwins(ctx, &doppelv1.WatchTwinsRequest{Ids: ids, Filter: filter, ResumeToken: *token})
			if err != nil {
				return err
			}
			for {
				ev, err := s.Recv()
				if err != nil {
					return err
				}
				*token = ev.GetResumeToken()
				if err := o.printEvent(cmd.OutOrStdout(), ev, twinEventLine(ev)); err != nil {
					return err
				}
			}
		})
	}
	return cmd
}

func twinEventLine(ev *doppelv1.WatchTwinsResponse) string {
	t := ev.GetSnapshot()
	if t == nil {
		t = ev.GetChanged()
	}
	switch {
	case t != nil:
		return fmt.Sprintf("%s  %-24s %-7s seq %-8d %s", clock(t.GetLastSeen()), t.GetId(), onlineText(t), t.GetSeq(), metricsText(t))
	case ev.GetDeletedId() != "":
		return "deleted " + ev.GetDeletedId()
	case ev.GetGap() != nil:
		return fmt.Sprintf("missed %d changes (%s); all twins follow", ev.GetGap().GetMissed(), ev.GetGap().GetReason())
	}
	return ""
}

func (o *options) listTwins(w io.Writer, twins []*doppelv1.Twin) {
	columns(w, func(w io.Writer) {
		fmt.Fprint(w, "ID\tONLINE\tLAST SEEN\tALERTS\tMETRICS")
		if o.output == "wide" {
			fmt.Fprint(w, "\tBOOT\tSEQ\tAPPLIED\tLATE\tDUP\tDEAD\tHELD\tOWNER")
		}
		fmt.Fprintln(w)
		for _, t := range twins {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s", t.GetId(), onlineText(t), o.when(t.GetLastSeen()), len(t.GetOpenAlerts()), metricsText(t))
			if o.output == "wide" {
				c := t.GetCounters()
				fmt.Fprintf(w, "\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s", t.GetBoot(), t.GetSeq(),
					c.GetApplied(), c.GetLate(), c.GetDuplicate(), c.GetDeadLettered(), c.GetHeld(), t.GetOwner())
			}
			fmt.Fprintln(w)
		}
	})
}

func describeTwin(w io.Writer, t *doppelv1.Twin) {
	c := t.GetCounters()
	columns(w, func(w io.Writer) {
		fmt.Fprintf(w, "ID\t%s\n", t.GetId())
		fmt.Fprintf(w, "Online\t%s\n", onlineText(t))
		fmt.Fprintf(w, "Last seen\t%s\n", stamp(t.GetLastSeen()))
		fmt.Fprintf(w, "Created\t%s\n", stamp(t.GetCreateTime()))
		fmt.Fprintf(w, "Boot, seq\t%d, %d\n", t.GetBoot(), t.GetSeq())
		fmt.Fprintf(w, "Version\t%d\n", t.GetVersion())
		fmt.Fprintf(w, "Digest\t%016x (set %016x)\n", t.GetDigest(), t.GetSetDigest())
		fmt.Fprintf(w, "Samples\t%d applied, %d late, %d duplicate, %d dead-lettered, %d held\n",
			c.GetApplied(), c.GetLate(), c.GetDuplicate(), c.GetDeadLettered(), c.GetHeld())
		fmt.Fprintf(w, "Gaps\t%d, %d numbers missing\n", c.GetGaps(), c.GetMissing())
		fmt.Fprintf(w, "Owner\t%s, epoch %d\n", t.GetOwner(), t.GetEpoch())
		if t.GetQuarantined() {
			fmt.Fprintln(w, "Quarantined\tyes: its inputs go to the dead letters")
		}
		if t.GetStale() {
			fmt.Fprintln(w, "Stale\tyes: the log does not answer, so another node may own it by now")
		}
		fmt.Fprintf(w, "Open alerts\t%s\n", orDash(strings.Join(t.GetOpenAlerts(), " ")))
		if len(t.GetTags()) > 0 {
			var tags []string
			for _, key := range slices.Sorted(maps.Keys(t.GetTags())) {
				tags = append(tags, key+"="+t.GetTags()[key])
			}
			fmt.Fprintf(w, "Tags\t%s\n", strings.Join(tags, " "))
		}
		if t.GetDesiredVersion() > 0 {
			fmt.Fprintf(w, "Desired\t%s (version %d)\n", compactJSON(t.GetDesired()), t.GetDesiredVersion())
			switch {
			case t.GetDivergeTime() != nil:
				fmt.Fprintf(w, "Delta\t%s since %s\n", compactJSON(t.GetDelta()), stamp(t.GetDivergeTime()))
			case t.GetConvergence() != nil:
				fmt.Fprintf(w, "Delta\tnone, the device reported it after %s\n", t.GetConvergence().AsDuration())
			}
		}
		fmt.Fprintf(w, "Etag\t%s\n", orDash(t.GetEtag()))
		if t.GetReported() != nil {
			if b, err := toJSON(t.GetReported()); err == nil {
				fmt.Fprintf(w, "Reported\t%s\n", b)
			}
		}
	})
	if len(t.GetMetrics()) == 0 {
		return
	}
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "METRIC\tVALUE\tTIME\tMEAN\tSTDDEV\tMIN\tMAX\tCOUNT\tZ\tSCORE")
		for _, name := range slices.Sorted(maps.Keys(t.GetMetrics())) {
			m := t.GetMetrics()[name]
			fmt.Fprintf(w, "%s\t%.6g\t%s\t%.6g\t%.4g\t%.6g\t%.6g\t%d\t%s\t%s\n", name, m.GetValue(), clock(m.GetTime()),
				m.GetMean(), m.GetStddev(), m.GetMin(), m.GetMax(), m.GetCount(), optional(m.Z), optional(m.Score))
		}
	})
}

func onlineText(t *doppelv1.Twin) string {
	switch {
	case t.GetQuarantined():
		return "quarantined"
	case t.GetOnline():
		return "online"
	}
	return "offline"
}

func metricsText(t *doppelv1.Twin) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(t.GetMetrics())) {
		parts = append(parts, fmt.Sprintf("%s=%.5g", name, t.GetMetrics()[name].GetValue()))
		if len(parts) == 4 && len(t.GetMetrics()) > 4 {
			parts = append(parts, fmt.Sprintf("(%d more)", len(t.GetMetrics())-4))
			break
		}
	}
	return orDash(strings.Join(parts, " "))
}

func optional(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// when is how long ago a time was, or how soon it is; with -o wide the time itself.
func (o *options) when(t *timestamppb.Timestamp) string {
	if t == nil || o.output == "wide" {
		return stamp(t)
	}
	d := o.now().Sub(t.AsTime())
	if d < 0 {
		return "in " + lapse(-d)
	}
	return lapse(d) + " ago"
}

// lapse is a duration in the one unit that matters.
func lapse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// clock is the time of day, stamp the whole time, both local.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format("15:04:05.000")
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format(time.RFC3339Nano)
}
