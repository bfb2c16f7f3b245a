package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func rulesCommand(o *options) *cobra.Command {
	cmd := Group("rules", "List, apply, delete and test alert rules")
	cmd.AddCommand(rulesList(o), rulesApply(o), rulesDelete(o), rulesTest(o))
	return cmd
}

// everyRule are all rules there are, by id.
func everyRule(ctx context.Context, client doppelv1.RuleServiceClient) ([]*doppelv1.Rule, error) {
	rules, _, err := pages(0, func(size int32, token string) ([]*doppelv1.Rule, string, int64, error) {
		r, err := client.ListRules(ctx, &doppelv1.ListRulesRequest{PageSize: size, PageToken: token})
		return r.GetRules(), r.GetNextPageToken(), 0, err
	})
	return rules, err
}

func rulesList(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all rules, the built-in ones included", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				rules, err := everyRule(ctx, doppelv1.NewRuleServiceClient(conn))
				if err != nil {
					return err
				}
				return printList(o, cmd.OutOrStdout(), rules, func(w io.Writer) { o.listRules(w, rules) })
			})
		},
	}
}

func (o *options) listRules(w io.Writer, rules []*doppelv1.Rule) {
	columns(w, func(w io.Writer) {
		fmt.Fprint(w, "ID\tVERSION\tKIND\tMODE\tWATCHES\tOF\tLEVELS")
		if o.output == "wide" {
			fmt.Fprint(w, "\tFOR\tDWELL\tUPDATED\tBY")
		}
		fmt.Fprintln(w)
		for _, r := range rules {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s", r.GetId(), r.GetVersion(), r.GetKind(), cmp.Or(r.GetMode(), "live"), watched(r), matched(r.GetMatch()), levels(r))
			if o.output == "wide" {
				fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", patience(r), lasting(r.GetMinDwell().AsDuration()), o.when(r.GetUpdateTime()), orDash(r.GetUpdatedBy()))
			}
			fmt.Fprintln(w)
		}
	})
}

// watched is what a rule looks at.
func watched(r *doppelv1.Rule) string {
	switch {
	case r.GetExpression() != "":
		return r.GetExpression()
	case r.GetMetric() != "":
		return r.GetMetric()
	case r.GetKind() == "zscore" || r.GetKind() == "threshold" || r.GetKind() == "rate":
		return "every metric"
	default:
		return "the device"
	}
}

// matched are the devices a rule is meant for.
func matched(m *doppelv1.Match) string {
	var parts []string
	if m.GetDevice() != "" {
		parts = append(parts, m.GetDevice())
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetTags())) {
		parts = append(parts, key+"="+m.GetTags()[key])
	}
	return cmp.Or(strings.Join(parts, ","), "all")
}

// levels are the bounds of a rule from mild to severe.
func levels(r *doppelv1.Rule) string {
	var parts []string
	for _, severity := range []string{"info", "warning", "critical"} {
		l, ok := r.GetLevels()[severity]
		if !ok {
			continue
		}
		bound := ""
		switch {
		case l.GetOp() == "outside":
			bound = fmt.Sprintf(" outside %g..%g", l.GetLow(), l.GetHigh())
		case l.GetEnter() != 0:
			bound = fmt.Sprintf(" %s%g", l.GetOp(), l.GetEnter())
		}
		if l.GetExit() != 0 {
			bound += fmt.Sprintf(" exit %g", l.GetExit())
		}
		parts = append(parts, severity+bound)
	}
	return orDash(strings.Join(parts, "; "))
}

func patience(r *doppelv1.Rule) string {
	var parts []string
	if n := r.GetForSamples(); n > 1 {
		parts = append(parts, fmt.Sprintf("%d samples", n))
	}
	if d := r.GetForDuration().AsDuration(); d > 0 {
		parts = append(parts, d.String())
	}
	return orDash(strings.Join(parts, ", "))
}

func lasting(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.String()
}

func rulesApply(o *options) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Make rules what a YAML or JSON file says", Args: exactly("FILE"),
		Long: "Applies every rule of a file (- is standard input), after all of them were found right. Rules that the\n" +
			"file does not name stay as they are.",
		Example: "  doppel rules apply rules.yaml --dry-run\n\n" +
			"  rules:\n" +
			"  - {id: hot-pump, kind: zscore, metric: temperature, match: {device: \"pump-*\", tags: {site: brno}},\n" +
			"     levels: {warning: {enter: 4, exit: 2}, critical: {enter: 6, exit: 3}}, for_samples: 2}",
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rules, err := readRules(cmd, args[0])
		if err != nil {
			return err
		}
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			client := doppelv1.NewRuleServiceClient(conn)
			before, err := everyRule(ctx, client)
			if err != nil {
				return err
			}
			applied, err := checkRules(ctx, client, rules)
			if err != nil {
				return err
			}
			if !dryRun {
				if applied, err = applyRules(ctx, client, rules); err != nil {
					return err
				}
			}
			return printList(o, cmd.OutOrStdout(), applied, func(w io.Writer) { showApplied(w, before, applied, dryRun) })
		})
	}
	return cmd
}

// checkRules asks what each rule would be, and so whether all of them are right.
func checkRules(ctx context.Context, client doppelv1.RuleServiceClient, rules []*doppelv1.Rule) ([]*doppelv1.Rule, error) {
	checked := make([]*doppelv1.Rule, 0, len(rules))
	for i, r := range rules {
		next, err := client.ApplyRule(ctx, &doppelv1.ApplyRuleRequest{Rule: r, ValidateOnly: true})
		if err != nil {
			return nil, prefixed(fmt.Sprintf("rules[%d] %q", i, r.GetId()), err)
		}
		checked = append(checked, next)
	}
	return checked, nil
}

// appliedAtOnce rules are on their way at a time: each is answered when it is in force, and those that come
// together come in force together.
const appliedAtOnce = 16

func applyRules(ctx context.Context, client doppelv1.RuleServiceClient, rules []*doppelv1.Rule) ([]*doppelv1.Rule, error) {
	applied := make([]*doppelv1.Rule, len(rules))
	var done atomic.Int32
	var g errgroup.Group
	g.SetLimit(appliedAtOnce)
	for i, r := range rules {
		g.Go(func() (err error) {
			if applied[i], err = client.ApplyRule(ctx, &doppelv1.ApplyRuleRequest{Rule: r}); err != nil {
				return prefixed(fmt.Sprintf("%q", r.GetId()), err)
			}
			done.Add(1)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, prefixed(fmt.Sprintf("%d of %d rules applied, not", done.Load(), len(rules)), err)
	}
	return applied, nil
}

func showApplied(w io.Writer, before, applied []*doppelv1.Rule, dryRun bool) {
	versions := make(map[string]uint64, len(before))
	for _, r := range before {
		versions[r.GetId()] = r.GetVersion()
	}
	for _, r := range applied {
		what := "changed"
		switch had, ok := versions[r.GetId()]; {
		case !ok:
			what = "created"
		case had == r.GetVersion():
			what = "unchanged"
		}
		if dryRun && what != "unchanged" {
			what = "would be " + what
		}
		fmt.Fprintf(w, "%s %s (version %d)\n", r.GetId(), what, r.GetVersion())
	}
}

func rulesDelete(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Delete a rule, or give a built-in one back what it was", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := doppelv1.NewRuleServiceClient(conn).DeleteRule(ctx, &doppelv1.DeleteRuleRequest{Id: args[0]})
				if err == nil && o.table() {
					fmt.Fprintln(cmd.OutOrStdout(), args[0], "deleted")
				}
				return err
			})
		},
	}
}

func rulesTest(o *options) *cobra.Command {
	var since, timeout time.Duration
	var devices []string
	cmd := &cobra.Command{
		Use: "test FILE", Short: "Say what the rules of a file would have done", Args: exactly("FILE"),
		Long: "Runs each rule of a file (- is standard input) over the recorded past, and lists the alerts that would\n" +
			"have fired. Nothing is changed and nobody is notified.",
	}
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back")
	cmd.Flags().StringSliceVar(&devices, "device", nil, "only this `ID`; may be given several times")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long all of it may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if since <= 0 {
			return usagef("--since: %v is not in the past", since)
		}
		rules, err := readRules(cmd, args[0])
		if err != nil {
			return err
		}
		return o.call(cmd, func(_ context.Context, conn *grpc.ClientConn) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout) // longer than other calls
			defer cancel()
			client, end := doppelv1.NewRuleServiceClient(conn), time.Now()
			var results []*doppelv1.TestRuleResponse
			for i, r := range rules {
				result, err := client.TestRule(ctx, &doppelv1.TestRuleRequest{ //nolint:contextcheck // the other has too short a deadline
					Rule: r, Start: timestamppb.New(end.Add(-since)), End: timestamppb.New(end), Devices: devices,
				})
				if err != nil {
					return prefixed(fmt.Sprintf("rules[%d] %q", i, r.GetId()), err)
				}
				results = append(results, result)
			}
			return printList(o, cmd.OutOrStdout(), results, func(w io.Writer) { o.showTests(w, rules, results) })
		})
	}
	return cmd
}

func (o *options) showTests(w io.Writer, rules []*doppelv1.Rule, results []*doppelv1.TestRuleResponse) {
	for i, result := range results {
		fmt.Fprintf(w, "%s would have fired %d times in %d samples\n", rules[i].GetId(), len(result.GetWouldFire()), result.GetSamples())
		if len(result.GetWouldFire()) > 0 {
			o.listAlerts(w, result.GetWouldFire())
		}
	}
}
