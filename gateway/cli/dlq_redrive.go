package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// errRefusedAgain is the end of a redrive that left something behind; the answer is printed.
var errRefusedAgain = errors.New("some letters would be refused again: correct their bytes with --payload")

func dlqRedrive(o *options) *cobra.Command {
	var filter, payload string
	var dry bool
	cmd := &cobra.Command{
		Use: "redrive [ID...]", Short: "Send dead letters to their twins again",
		Long: "Send dead letters to their twins again, in order. A letter is sent once, however often this is\n" +
			"called, and not at all if its bytes would be refused for the same reason; then the exit code is 1.\n" +
			"Letters without a device, cut ones and refused rows cannot be sent.",
		Example: "  doppel dlq redrive 0-17 --payload corrected.json\n" +
			`  doppel dlq redrive --filter 'reason == "quarantined" && device == "pump-1"' --dry-run`,
	}
	cmd.Flags().StringVar(&filter, "filter", "", letterFilterUsage+", in place of ids")
	cmd.Flags().StringVar(&payload, "payload", "", "`FILE` of corrected bytes for the one letter named; -: standard input")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done and send nothing")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		req := &doppelv1.RedriveDeadLettersRequest{Ids: ids, Filter: filter, DryRun: dry}
		switch {
		case len(ids) == 0 && filter == "":
			return usagef("name letters, or give --filter; --filter true takes all")
		case len(ids) > 0 && filter != "":
			return usagef("--filter: either ids or a filter, not both")
		case payload != "" && len(ids) != 1:
			return usagef("--payload: replaces the bytes of one letter: name it as the only id")
		}
		if payload != "" {
			b, err := readPayload(cmd.InOrStdin(), payload)
			if err != nil {
				return err
			}
			req.ReplacementPayload = b
		}
		return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			r, err := doppelv1.NewFleetServiceClient(conn).RedriveDeadLetters(ctx, req)
			if err != nil {
				return err
			}
			if err := o.printOne(cmd.OutOrStdout(), r, func(w io.Writer) { describeRedrive(w, r, dry) }); err != nil {
				return err
			}
			if r.GetRefusedAgain() > 0 {
				return errRefusedAgain
			}
			return nil
		})
	}
	return cmd
}

func readPayload(stdin io.Reader, file string) (b []byte, err error) {
	if file == "-" {
		b, err = io.ReadAll(stdin)
	} else {
		b, err = os.ReadFile(file) //nolint:gosec // the user names it
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("--payload: %w", err)
	case len(b) == 0:
		return nil, usagef("--payload: %s is empty", file)
	}
	return b, nil
}

func describeRedrive(w io.Writer, r *doppelv1.RedriveDeadLettersResponse, dry bool) {
	sent := "redriven"
	if dry {
		sent = "would be redriven"
	}
	fmt.Fprintf(w, "%d %s, %d refused again, %d already done", r.GetRedriven(), sent, r.GetRefusedAgain(), r.GetAlreadyDone())
	if n := r.GetNotRedrivable(); n > 0 {
		fmt.Fprintf(w, ", %d that cannot be", n)
	}
	fmt.Fprintln(w)
	if len(r.GetProblems()) == 0 {
		return
	}
	fmt.Fprintln(w)
	columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tDEVICE\tREASON\tDETAIL")
		for _, p := range r.GetProblems() {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.GetId(), orDash(printable(p.GetDevice())), p.GetReason(), printable(p.GetDetail()))
		}
	})
	if left := r.GetRefusedAgain() + r.GetNotRedrivable() - uint64(len(r.GetProblems())); left > 0 {
		fmt.Fprintf(w, "and %d more\n", left)
	}
}
