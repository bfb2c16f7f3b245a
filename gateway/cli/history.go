package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// span is --since, --start, --end and --interval.
type span struct {
	since, interval time.Duration
	start, end      string
}

func twinHistory(o *options) *cobra.Command {
	var s span
	var limit int
	cmd := &cobra.Command{
		Use: "history ID METRIC", Short: "Show what a metric was", Args: exactly("ID", "METRIC"),
		Long: "Show the samples of a metric in [start, end), late ones too, by their own time; with --interval the count,\n" +
			"mean, minimum and maximum of each interval. An interval without samples is left out, a gap in the line.",
		Example: "  doppel twin history pump-1 temperature --since 6h --interval 5m\n" +
			"  doppel twin history pump-1 temperature --start 2026-11-22T10:00:00Z --end 2026-11-22T11:00:00Z -o json",
	}
	cmd.Flags().DurationVar(&s.since, "since", time.Hour, "from so long before the end")
	cmd.Flags().StringVar(&s.start, "start", "", "from this `TIME` on: RFC 3339, or a duration ago such as 90m")
	cmd.Flags().StringVar(&s.end, "end", "", "up to this `TIME`, without it (default now)")
	cmd.Flags().DurationVar(&s.interval, "interval", 0, "sum up intervals of this length")
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		req := &doppelv1.GetHistoryRequest{Id: args[0], Metric: args[1]}
		if err := s.set(cmd, req, time.Now()); err != nil {
			return err
		}
		return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			client := doppelv1.NewTwinServiceClient(conn)
			var last *doppelv1.GetHistoryResponse
			points, _, err := pages(limit, func(size int32, token string) (_ []*doppelv1.Point, _ string, _ int64, err error) {
				req.PageSize, req.PageToken = size, token
				last, err = client.GetHistory(ctx, req)
				return last.GetPoints(), last.GetNextPageToken(), 0, err
			})
			if err != nil {
				return err
			}
			err = printList(o, cmd.OutOrStdout(), points, func(w io.Writer) { o.listHistory(w, req, last.GetSource(), points) })
			if err == nil && last.GetRetainedFrom() != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "the log begins at %s: what came before is not here\n", stamp(last.GetRetainedFrom()))
			}
			if err == nil && last.GetNextPageToken() != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "the first %d; --limit 0 shows all\n", len(points))
			}
			return err
		})
	}
	return cmd
}

// set puts the span into a request. Intervals that are counted back from now begin at multiples of their
// length, so that the same ones are shown a moment later.
func (s *span) set(cmd *cobra.Command, req *doppelv1.GetHistoryRequest, now time.Time) (err error) {
	switch {
	case cmd.Flags().Changed("since") && s.start != "":
		return usagef("--since and --start: give one of them")
	case s.since <= 0:
		return usagef("--since: %v is not positive", s.since)
	case s.interval < 0:
		return usagef("--interval: %v is negative", s.interval)
	}
	end := now
	if s.end != "" {
		if end, err = parseTime("end", s.end, now); err != nil {
			return err
		}
	}
	start := end.Add(-s.since)
	if s.start != "" {
		if start, err = parseTime("start", s.start, now); err != nil {
			return err
		}
	} else if s.interval > 0 {
		start = start.Truncate(s.interval)
	}
	req.Start, req.End = timestamppb.New(start), timestamppb.New(end)
	if s.interval > 0 {
		req.Interval = durationpb.New(s.interval)
	}
	return nil
}

// listHistory is a line for the eye and a table.
func (o *options) listHistory(w io.Writer, req *doppelv1.GetHistoryRequest, source string, points []*doppelv1.Point) {
	from, to := req.GetStart().AsTime(), req.GetEnd().AsTime()
	fmt.Fprintf(w, "%s of %s, %s to %s, from %s\n", req.GetMetric(), req.GetId(), moments(from), moments(to), source)
	if len(points) == 0 {
		fmt.Fprintln(w, "no samples")
		return
	}
	width := sparkWidth
	if i := req.GetInterval(); i != nil {
		width = max(1, min(width, int((to.Sub(from)+i.AsDuration()-1)/i.AsDuration())))
	}
	line, least, mean, most := spark(points, from, to, width)
	fmt.Fprintf(w, "%s  %.6g to %.6g, mean %.6g\n\n", line, least, most, mean)
	columns(w, func(w io.Writer) {
		if req.GetInterval() != nil {
			fmt.Fprintln(w, "TIME\tCOUNT\tMEAN\tMIN\tMAX")
			for _, p := range points {
				fmt.Fprintf(w, "%s\t%d\t%.6g\t%.6g\t%.6g\n", moments(p.GetTime().AsTime()), p.GetCount(), p.GetMean(), p.GetMin(), p.GetMax())
			}
			return
		}
		fmt.Fprint(w, "TIME\tVALUE\tZ")
		if o.output == "wide" {
			fmt.Fprint(w, "\tBOOT\tSEQ")
		}
		fmt.Fprintln(w)
		for _, p := range points {
			z := "-"
			if p.Z != nil {
				z = fmt.Sprintf("%.2f", p.GetZ())
			}
			fmt.Fprintf(w, "%s\t%.6g\t%s", moments(p.GetTime().AsTime()), p.GetValue(), z)
			if o.output == "wide" {
				fmt.Fprintf(w, "\t%d\t%d", p.GetBoot(), p.GetSeq())
			}
			fmt.Fprintln(w)
		}
	})
}

// sparkWidth is how many characters the line has at most.
const sparkWidth = 60

// spark draws the means over the span, one character for each part of it; a blank has no samples.
func spark(points []*doppelv1.Point, from, to time.Time, width int) (line string, least, mean, most float64) {
	sums, counts := make([]float64, width), make([]float64, width)
	least, most = math.Inf(1), math.Inf(-1)
	var sum, count float64
	for _, p := range points {
		value, low, high, n := p.GetValue(), p.GetValue(), p.GetValue(), 1.0
		if p.GetCount() > 0 {
			value, low, high, n = p.GetMean(), p.GetMin(), p.GetMax(), float64(p.GetCount())
		}
		at := int(float64(width) * float64(p.GetTime().AsTime().Sub(from)) / float64(to.Sub(from)))
		at = max(0, min(at, width-1))
		sums[at] += value * n
		counts[at] += n
		sum, count = sum+value*n, count+n
		least, most = min(least, low), max(most, high)
	}
	low, high := math.Inf(1), math.Inf(-1)
	for i := range sums {
		if counts[i] > 0 {
			sums[i] /= counts[i]
			low, high = min(low, sums[i]), max(high, sums[i])
		}
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for i, v := range sums {
		switch {
		case counts[i] == 0:
			b.WriteByte(' ')
		case high == low:
			b.WriteRune(bars[len(bars)/2])
		default:
			b.WriteRune(bars[int((v-low)/(high-low)*float64(len(bars)-1)+0.5)])
		}
	}
	return b.String(), least, sum / count, most
}

// moments is a time in a table, local.
func moments(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }
