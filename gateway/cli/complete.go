package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// completeTimeout is how long somebody who pressed Tab is kept waiting.
	completeTimeout = time.Second
	// completeMost is how many words are offered.
	completeMost = 100
)

// words are what an argument may be: those that begin with prefix, of a command with args before it.
type words func(ctx context.Context, conn *grpc.ClientConn, args []string, prefix string) ([]cobra.Completion, error)

// arguments says how the arguments of commands are completed: by their place, the last of open ones for all
// that follow.
func arguments() map[string]struct {
	places []words
	open   bool
} {
	type a = struct {
		places []words
		open   bool
	}
	one := func(w words) a { return a{places: []words{w}} }
	many := func(w words) a { return a{places: []words{w}, open: true} }
	return map[string]a{
		"twin get": one(twinWords), "twin watch": many(twinWords), "twin reset": one(twinWords), "twin delete": one(twinWords),
		"twin set-desired": one(twinWords), "twin set-tags": one(twinWords), "twin tag": one(twinWords),
		"twin history": {places: []words{twinWords, metricWords}}, "replay": one(twinWords), "command": one(twinWords),
		"alerts ack": one(alertWords("state != \"RESOLVED\"")), "alerts explain": one(alertWords("")),
		"alerts watch": many(twinWords), "alerts unsilence": one(silenceWords), "rules delete": one(ruleWords),
		"dlq show": one(letterWords), "dlq redrive": many(letterWords), "cluster drain": one(nodeWords),
	}
}

// complete lets the shell complete ids. What cannot be asked for in time is not completed, and nothing is said.
func (o *options) complete(root *cobra.Command) {
	for path, a := range arguments() {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			continue
		}
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			at := len(args)
			if a.open {
				at = min(at, len(a.places)-1)
			}
			if at >= len(a.places) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return o.offer(cmd, a.places[at], args, prefix), cobra.ShellCompDirectiveNoFileComp
		}
	}
}

func (o *options) offer(cmd *cobra.Command, list words, args []string, prefix string) []cobra.Completion {
	conn, err := o.connect()
	if err != nil {
		return nil
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completeTimeout)
	defer cancel()
	all, err := list(ctx, conn, args, prefix)
	if err != nil {
		return nil
	}
	begin := all[:0]
	for _, w := range all {
		if strings.HasPrefix(w, prefix) && len(begin) < completeMost {
			begin = append(begin, w)
		}
	}
	return begin
}

func twinWords(ctx context.Context, conn *grpc.ClientConn, _ []string, prefix string) ([]cobra.Completion, error) {
	r, err := doppelv1.NewTwinServiceClient(conn).ListTwins(ctx, &doppelv1.ListTwinsRequest{
		Filter: "id.startsWith(" + strconv.Quote(prefix) + ")", OrderBy: "id", PageSize: completeMost, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"id"}},
	})
	all := make([]cobra.Completion, 0, len(r.GetTwins()))
	for _, t := range r.GetTwins() {
		all = append(all, t.GetId())
	}
	return all, err
}

func metricWords(ctx context.Context, conn *grpc.ClientConn, args []string, _ string) ([]cobra.Completion, error) {
	t, err := doppelv1.NewTwinServiceClient(conn).GetTwin(ctx, &doppelv1.GetTwinRequest{Id: args[0], ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"metrics"}}})
	return slices.Sorted(maps.Keys(t.GetMetrics())), err
}

func alertWords(filter string) words {
	return func(ctx context.Context, conn *grpc.ClientConn, _ []string, _ string) ([]cobra.Completion, error) {
		r, err := doppelv1.NewAlertServiceClient(conn).ListAlerts(ctx, &doppelv1.ListAlertsRequest{Filter: filter, PageSize: 1000})
		var all []cobra.Completion
		for _, a := range r.GetAlerts() {
			all = append(all, cobra.CompletionWithDesc(a.GetId(), fmt.Sprintf("%s %s of %s, %s", a.GetState(), a.GetSeverity(), a.GetDevice(), a.GetRule())))
		}
		return all, err
	}
}

func silenceWords(ctx context.Context, conn *grpc.ClientConn, _ []string, _ string) ([]cobra.Completion, error) {
	r, err := doppelv1.NewAlertServiceClient(conn).ListSilences(ctx, &doppelv1.ListSilencesRequest{PageSize: 1000})
	var all []cobra.Completion
	for _, s := range r.GetSilences() {
		all = append(all, cobra.CompletionWithDesc(s.GetId(), s.GetFilter()))
	}
	return all, err
}

func ruleWords(ctx context.Context, conn *grpc.ClientConn, _ []string, _ string) ([]cobra.Completion, error) {
	rules, err := everyRule(ctx, doppelv1.NewRuleServiceClient(conn))
	var all []cobra.Completion
	for _, r := range rules {
		all = append(all, cobra.CompletionWithDesc(r.GetId(), r.GetKind()+" of "+watched(r)))
	}
	return all, err
}

func letterWords(ctx context.Context, conn *grpc.ClientConn, _ []string, _ string) ([]cobra.Completion, error) {
	letters, _, err := lettersOf(ctx, conn, &doppelv1.ListDeadLettersRequest{ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"id", "device", "reason"}}}, completeMost)
	var all []cobra.Completion
	for _, l := range letters {
		all = append(all, cobra.CompletionWithDesc(l.GetId(), l.GetReason()+" of "+orDash(printable(l.GetDevice()))))
	}
	return all, err
}

func nodeWords(ctx context.Context, conn *grpc.ClientConn, _ []string, _ string) ([]cobra.Completion, error) {
	s, err := doppelv1.NewFleetServiceClient(conn).GetStatus(ctx, &doppelv1.GetStatusRequest{})
	var all []cobra.Completion
	for _, n := range s.GetNodes() {
		all = append(all, cobra.CompletionWithDesc(n.GetId(), n.GetState()))
	}
	return all, err
}
