package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func alertsAck(o *options) *cobra.Command {
	var comment string
	cmd := &cobra.Command{
		Use: "ack ID", Short: "Say that you look after an alert", Args: exactly("ID"),
		Example: `  doppel alerts ack 7dc1a2e4b7f00213 -m "on my way"`,
	}
	cmd.Flags().StringVarP(&comment, "comment", "m", "", "`TEXT` for the others")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			a, err := doppelv1.NewAlertServiceClient(conn).AcknowledgeAlert(ctx, &doppelv1.AcknowledgeAlertRequest{Id: args[0], Comment: comment})
			if err != nil {
				return err
			}
			return o.printOne(cmd.OutOrStdout(), a, func(w io.Writer) { describeAlert(w, a) })
		})
	}
	return cmd
}

func alertsExplain(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "explain ID", Short: "Tell an alert again from the log, with the readings behind it", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				e, err := doppelv1.NewAlertServiceClient(conn).ExplainAlert(ctx, &doppelv1.ExplainAlertRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return o.printOne(cmd.OutOrStdout(), e, func(w io.Writer) { describeExplanation(w, e) })
			})
		},
	}
}

// describeAlert is one alert, a field a line.
func describeAlert(w io.Writer, a *doppelv1.Alert) {
	columns(w, func(w io.Writer) {
		row := func(name, value string) {
			if value != "" && value != "-" {
				fmt.Fprintf(w, "%s\t%s\n", name, value)
			}
		}
		row("ID", a.GetId())
		row("DEVICE", a.GetDevice())
		row("RULE", fmt.Sprintf("%s v%d", a.GetRule(), a.GetRuleVersion()))
		row("METRIC", a.GetMetric())
		row("STATE", fmt.Sprintf("%s %s", a.GetState(), a.GetSeverity()))
		row("REASON", a.GetReason())
		row("PENDING", stamp(a.GetCreateTime()))
		row("FIRED", stamp(a.GetFireTime()))
		row("ESCALATED", stamp(a.GetEscalateTime()))
		row("RESOLVED", stamp(a.GetResolveTime()))
		if a.GetAcknowledgeTime() != nil {
			by := fmt.Sprintf("%s by %s", stamp(a.GetAcknowledgeTime()), a.GetAcknowledgedBy())
			if a.GetAcknowledgeComment() != "" {
				by += ": " + a.GetAcknowledgeComment()
			}
			row("ACKNOWLEDGED", by)
		}
		row("SILENCED BY", a.GetSilence())
		row("FLAPPING", said(a.GetFlapping()))
		row("SHADOW", said(a.GetShadow()))
	})
}

func said(yes bool) string {
	if yes {
		return "yes"
	}
	return ""
}

// alertMarks are the fields of an alert that are not states, for a line of a list.
func alertMarks(a *doppelv1.Alert) string {
	var marks []string
	if a.GetAcknowledgeTime() != nil {
		marks = append(marks, "acknowledged by "+a.GetAcknowledgedBy())
	}
	for _, m := range []struct {
		is   bool
		name string
	}{
		{a.GetEscalateTime() != nil, "escalated"}, {a.GetSilenced(), "silenced"}, {a.GetFlapping(), "flapping"}, {a.GetShadow(), "shadow"},
	} {
		if m.is {
			marks = append(marks, m.name)
		}
	}
	if len(marks) == 0 {
		return ""
	}
	return " (" + strings.Join(marks, ", ") + ")"
}

// describeExplanation shows what the log says of an alert, and the readings around its transitions.
func describeExplanation(w io.Writer, e *doppelv1.ExplainAlertResponse) {
	a := e.GetRecomputed()
	if a == nil {
		fmt.Fprintln(w, "The log gives no such alert, although one was recorded.")
	} else {
		describeAlert(w, a)
	}
	verdict := "The log gives the same alert as was recorded."
	if !e.GetEqual() {
		verdict = "The log gives ANOTHER alert than was recorded."
	}
	fmt.Fprintf(w, "\n%s\n", verdict)
	if len(e.GetEvidence()) == 0 {
		return
	}
	of := a.GetMetric()
	if of == "" {
		of = "the device (its first metric)"
	}
	fmt.Fprintf(w, "\nReadings of %s around its transitions:\n", of)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "TIME\tBOOT\tSEQ\tVALUE\tZ\t")
		told := false
		for _, p := range e.GetEvidence() {
			z := "-"
			if p.Z != nil {
				z = strconv.FormatFloat(p.GetZ(), 'f', 2, 64)
			}
			note := ""
			if !told && a.GetFireTime() != nil && !p.GetTime().AsTime().Before(a.GetFireTime().AsTime()) {
				note, told = "fires", true
			}
			if a.GetResolveTime() != nil && p.GetTime().AsTime().Equal(a.GetResolveTime().AsTime()) {
				note = "resolves"
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%.6g\t%s\t%s\n", p.GetTime().AsTime().Format(time.RFC3339Nano), p.GetBoot(), p.GetSeq(), p.GetValue(), z, note)
		}
	})
}
