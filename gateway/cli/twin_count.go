package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func twinCount(o *options) *cobra.Command {
	req := &doppelv1.AggregateTwinsRequest{}
	var limit int
	cmd := &cobra.Command{
		Use: "count", Short: "Count twins, by a tag or a field, and tell how metrics are distributed", Args: cobra.NoArgs,
		Example: "  doppel twin count --by tags.site --metric temperature\n  doppel twin count --filter 'online && tags[\"site\"] == \"brno\"'",
	}
	cmd.Flags().StringVar(&req.Filter, "filter", "", "CEL `EXPR` over the fields of Twin")
	cmd.Flags().StringVar(&req.GroupBy, "by", "", "`tags.KEY`, online, owner or quarantined")
	cmd.Flags().StringSliceVar(&req.Metrics, "metric", nil, "`NAMES` of metrics whose latest values are summed up")
	cmd.Flags().Float64SliceVar(&req.Quantiles, "quantile", []float64{0.5, 0.9, 0.99}, "which `Q` of those to show, each between 0 and 1")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many groups, up to 1000, the largest first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 1 || limit > 1000 {
			return usagef("--limit: %d: want 1 to 1000", limit)
		}
		req.PageSize = int32(limit)
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			resp, err := doppelv1.NewTwinServiceClient(conn).AggregateTwins(ctx, req)
			if err != nil {
				return err
			}
			return o.printOne(cmd.OutOrStdout(), resp, func(w io.Writer) { listGroups(w, req, resp) })
		})
	}
	return cmd
}

func listGroups(w io.Writer, req *doppelv1.AggregateTwinsRequest, resp *doppelv1.AggregateTwinsResponse) {
	if req.GetGroupBy() == "" && len(req.GetMetrics()) == 0 {
		fmt.Fprintln(w, resp.GetTotalSize())
		return
	}
	columns(w, func(w io.Writer) {
		by := req.GetGroupBy()
		if by == "" {
			by = "all"
		}
		fmt.Fprintf(w, "%s\tTWINS", by)
		if len(req.GetMetrics()) > 0 {
			fmt.Fprint(w, "\tMETRIC\tCOUNT\tMEAN\tMIN")
			for _, q := range req.GetQuantiles() {
				fmt.Fprintf(w, "\tP%s", strconv.FormatFloat(100*q, 'g', 6, 64))
			}
			fmt.Fprint(w, "\tMAX")
		}
		fmt.Fprintln(w)
		for _, g := range resp.GetGroups() {
			listGroup(w, req, g)
		}
	})
	if resp.GetMoreGroups() > 0 {
		fmt.Fprintf(w, "%d more groups; %d twins in all\n", resp.GetMoreGroups(), resp.GetTotalSize())
	}
}

func listGroup(w io.Writer, req *doppelv1.AggregateTwinsRequest, g *doppelv1.TwinGroup) {
	name := orDash(g.GetValue())
	if len(req.GetMetrics()) == 0 {
		fmt.Fprintf(w, "%s\t%d\n", name, g.GetCount())
		return
	}
	for _, metric := range req.GetMetrics() {
		m := g.GetMetrics()[metric]
		fmt.Fprintf(w, "%s\t%d\t%s\t%d", name, g.GetCount(), metric, m.GetCount())
		if m.GetCount() > 0 {
			fmt.Fprintf(w, "\t%.6g\t%.6g", m.GetMean(), m.GetMin())
			for _, v := range m.GetQuantiles() {
				fmt.Fprintf(w, "\t%.6g", v)
			}
			fmt.Fprintf(w, "\t%.6g", m.GetMax())
		}
		fmt.Fprintln(w)
	}
}
