package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func auditCommand(o *options) *cobra.Command {
	var shallow bool
	cmd := &cobra.Command{
		Use: "audit", Short: "Check the accounts: node, twins, log, dead letters and rows",
		Long: "Check that received = applied + late + duplicate + dead-lettered + held + in flight; then fold the\n" +
			"whole log again and compare every twin with it, count dead letters, and compare the rows in QuestDB\n" +
			"with the samples of every twin. It names the first difference; exit code 1: there is one.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&shallow, "shallow", false, "only what the node has in memory: do not read log and QuestDB")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			a, err := doppelv1.NewFleetServiceClient(conn).GetAudit(ctx, &doppelv1.GetAuditRequest{Deep: !shallow})
			if err != nil {
				return err
			}
			if err := o.printOne(cmd.OutOrStdout(), a, func(w io.Writer) { o.describeAudit(w, a) }); err != nil {
				return err
			}
			if !a.GetBalanced() {
				return errUnbalanced
			}
			return nil
		})
	}
	return cmd
}

func (o *options) describeAudit(w io.Writer, a *doppelv1.Audit) {
	result := "balanced"
	if !a.GetBalanced() {
		result = "DIFFERENCE: " + a.GetDifference()
	}
	n, t := a.GetTotals(), a.GetTwins()
	columns(w, func(w io.Writer) {
		fmt.Fprintf(w, "Result\t%s\n", result)
		fmt.Fprintf(w, "Node\t%d received = %d applied + %d late + %d duplicate + %d dead-lettered + %d held + %d in flight\n", a.GetReceived(),
			n.GetApplied(), n.GetLate(), n.GetDuplicate(), n.GetDeadLettered(), n.GetHeld(), a.GetInFlight())
		fmt.Fprintf(w, "Twins\t%d applied, %d late, %d dead-lettered, %d held; %d gaps, %d missing\n",
			t.GetApplied(), t.GetLate(), t.GetDeadLettered(), t.GetHeld(), t.GetGaps(), t.GetMissing())
		if l := a.GetLog(); l != nil {
			fmt.Fprintf(w, "Log\t%d records, %d void%s\n", l.GetRecords(), l.GetVoid(), reach(l))
			fmt.Fprintf(w, "Dead letters\t%d written, %d records of refused samples\n", l.GetDeadLetters(), l.GetRefused())
		}
		if r := a.GetRows(); r != nil {
			fmt.Fprintf(w, "QuestDB\t%d rows for %d samples, %d refused; it was %d records behind\n", r.GetRows(), r.GetSamples(), r.GetRefused(), r.GetLag())
		}
	})
	if o.output != "wide" {
		return
	}
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "PARTITION\tTWINS\tSTATE HASH\tAS OF OFFSET")
		for _, p := range a.GetPartitions() {
			fmt.Fprintf(w, "%d\t%d\t%016x\t%d\n", p.GetId(), p.GetTwins(), p.GetStateHash(), p.GetNextOffset())
		}
	})
}

// reach says what the log no longer has.
func reach(l *doppelv1.LogAudit) string {
	if l.GetWhole() {
		return ", from the beginning"
	}
	return fmt.Sprintf("; its beginning was removed, %d twins could not be checked", l.GetUncovered())
}
