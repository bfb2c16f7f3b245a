package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// readLogTimeout bounds a call that reads the log again.
const readLogTimeout = 15 * time.Minute

// errDiffers and errUnbalanced make the exit code 1; what differs was printed.
var (
	errDiffers    = errors.New("the replay differs")
	errUnbalanced = errors.New("the accounts do not balance")
)

func replayCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "replay ID", Short: "Fold a twin's log again and compare with the live twin",
		Long: "Fold the log of a device again, by the same steps as when the records were written, and compare\n" +
			"what every record says (samples, scores, alerts) and the state at the end with the live twin, bit for\n" +
			"bit. The fold begins as early as the log allows: with the twin's first record, with the oldest anchor\n" +
			"(a copy of the twin in the log) or with its checkpoint. Exit code 1: something differs.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
				r, err := doppelv1.NewTwinServiceClient(conn).ReplayTwin(ctx, &doppelv1.ReplayTwinRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if err := o.printOne(cmd.OutOrStdout(), r, func(w io.Writer) { describeReplay(w, r) }); err != nil {
					return err
				}
				if !r.GetEqual() {
					return errDiffers
				}
				return nil
			})
		},
	}
}

func describeReplay(w io.Writer, r *doppelv1.ReplayTwinResponse) {
	result := "equal"
	if !r.GetEqual() {
		result = "DIFFERS: " + r.GetDifference()
	}
	columns(w, func(w io.Writer) {
		fmt.Fprintf(w, "Result\t%s\n", result)
		fmt.Fprintf(w, "Began\twith its %s at offset %d, version %d\n", r.GetStart(), r.GetStartOffset(), r.GetStartVersion())
		fmt.Fprintf(w, "Inputs\t%d, up to offset %d\n", r.GetInputs(), r.GetNextOffset())
		fmt.Fprintf(w, "Version\t%d\n", r.GetVersion())
		fmt.Fprintf(w, "State hash\t%016x\n", r.GetStateHash())
	})
}

// readLog is call for what may take minutes: it can be interrupted.
func (o *options) readLog(cmd *cobra.Command, fn func(ctx context.Context, conn *grpc.ClientConn) error) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, stop := interrupted(cmd.Context())
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, readLogTimeout)
	defer cancel()
	return fn(ctx, conn)
}

// moment is --version and --at.
type moment struct {
	version uint64
	time    string
}

func (m *moment) flags(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&m.version, "version", 0, "the twin as it was at version `N`")
	cmd.Flags().StringVar(&m.time, "at", "", "the twin as it was at `TIME`: RFC 3339, or a duration ago such as 90s or 2h")
}

// set puts the moment into a request; asked: there is one.
func (m *moment) set(cmd *cobra.Command, req *doppelv1.GetTwinRequest) (asked bool, err error) {
	byVersion, byTime := cmd.Flags().Changed("version"), cmd.Flags().Changed("at")
	switch {
	case byVersion && byTime:
		return false, usagef("--version and --at: give one of them")
	case byVersion:
		req.AsOf = &doppelv1.GetTwinRequest_Version{Version: m.version}
	case byTime:
		t, err := parseTime("at", m.time, time.Now())
		if err != nil {
			return false, err
		}
		req.AsOf = &doppelv1.GetTwinRequest_Time{Time: timestamppb.New(t)}
	}
	return byVersion || byTime, nil
}

// parseTime reads a flag that is a time, or how long ago that was at now.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago < 0 {
		return time.Time{}, usagef("--%s: %q is neither RFC 3339 (2026-11-22T10:00:00Z) nor a duration ago (90s)", flag, text)
	}
	return now.Add(-ago), nil
}
