package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func dlqCommand(o *options) *cobra.Command {
	cmd := Group("dlq", "Dead letters: messages that were refused")
	cmd.AddCommand(dlqList(o), dlqShow(o), dlqTop(o), dlqRedrive(o))
	return cmd
}

const letterFilterUsage = "CEL `EXPR` over the fields of DeadLetter"

func dlqList(o *options) *cobra.Command {
	var filter string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, newest first", Args: cobra.NoArgs,
		Example: `  doppel dlq list --filter 'reason == "not_decodable" && device.startsWith("pump-") && !redriven'`,
	}
	cmd.Flags().StringVar(&filter, "filter", "", letterFilterUsage)
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			req := &doppelv1.ListDeadLettersRequest{Filter: filter}
			if o.table() { // payloads are not shown there
				req.ReadMask = &fieldmaskpb.FieldMask{Paths: []string{
					"id", "device", "reason", "detail", "receive_time", "source_topic", "content_type", "attempts", "node", "redriven",
				}}
			}
			letters, total, err := lettersOf(ctx, conn, req, limit)
			if err != nil {
				return err
			}
			if err := printList(o, cmd.OutOrStdout(), letters, func(w io.Writer) { o.listLetters(w, letters) }); err != nil {
				return err
			}
			if uint64(len(letters)) < total {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d letters; --limit 0 shows all\n", len(letters), total)
			}
			return nil
		})
	}
	return cmd
}

// lettersOf reads letters, newest first, until limit (0: none) or the end. total is how many there are.
func lettersOf(ctx context.Context, conn *grpc.ClientConn, req *doppelv1.ListDeadLettersRequest, limit int) (letters []*doppelv1.DeadLetter, total uint64, err error) {
	client := doppelv1.NewFleetServiceClient(conn)
	letters, _, err = pages(limit, func(size int32, token string) ([]*doppelv1.DeadLetter, string, int64, error) {
		req.PageSize, req.PageToken = size, token
		r, err := client.ListDeadLetters(ctx, req)
		for _, n := range r.GetByReason() { // on the first page
			total += n
		}
		return r.GetDeadLetters(), r.GetNextPageToken(), 0, err
	})
	return letters, total, err
}

func (o *options) listLetters(w io.Writer, letters []*doppelv1.DeadLetter) {
	columns(w, func(w io.Writer) {
		fmt.Fprint(w, "ID\tTIME\tDEVICE\tREASON\tREDRIVEN\tDETAIL")
		if o.output == "wide" {
			fmt.Fprint(w, "\tATTEMPTS\tTOPIC\tCONTENT TYPE\tNODE")
		}
		fmt.Fprintln(w)
		for _, l := range letters {
			detail := printable(l.GetDetail())
			if o.output != "wide" {
				detail = abbreviate(detail, 80)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s", l.GetId(), o.when(l.GetReceiveTime()), orDash(printable(l.GetDevice())), l.GetReason(),
				yesNo(l.GetRedriven()), orDash(detail))
			if o.output == "wide" {
				fmt.Fprintf(w, "\t%d\t%s\t%s\t%s", l.GetAttempts(), printable(l.GetSourceTopic()), orDash(printable(l.GetContentType())), orDash(l.GetNode()))
			}
			fmt.Fprintln(w)
		}
	})
}

func dlqShow(o *options) *cobra.Command {
	var raw string
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one dead letter with its payload", Args: exactly("ID"),
		Example: "  doppel dlq show 0-17 --raw bytes && edit bytes && doppel dlq redrive 0-17 --payload bytes",
	}
	cmd.Flags().StringVar(&raw, "raw", "", "write the payload as it came to `FILE`; -: to standard output, and nothing else")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			l, err := letterByID(ctx, conn, args[0])
			if err != nil {
				return err
			}
			switch raw {
			case "":
			case "-":
				_, err := cmd.OutOrStdout().Write(l.GetPayload())
				return err
			default:
				if err := os.WriteFile(raw, l.GetPayload(), 0o600); err != nil {
					return fmt.Errorf("--raw: %w", err)
				}
			}
			return o.printOne(cmd.OutOrStdout(), l, func(w io.Writer) { describeLetter(w, l) })
		})
	}
	return cmd
}

// letterByID finds a letter as people name it: 0-17.
func letterByID(ctx context.Context, conn *grpc.ClientConn, id string) (*doppelv1.DeadLetter, error) {
	if strings.ContainsAny(id, "\"\\\n") || !strings.Contains(id, "-") {
		return nil, usagef("%q is not the id of a dead letter: want PARTITION-OFFSET, such as 0-17", id)
	}
	letters, _, err := lettersOf(ctx, conn, &doppelv1.ListDeadLettersRequest{Filter: `id == "` + id + `"`}, 1)
	if err != nil {
		return nil, err
	}
	if len(letters) == 0 {
		return nil, &missingError{"no dead letter " + id}
	}
	return letters[0], nil
}

// missingError is about something that is not there.
type missingError struct{ text string }

func (e *missingError) Error() string { return e.text }

// ExitCode is that of every command that finds nothing.
func (*missingError) ExitCode() int { return exitNotFound }

func describeLetter(w io.Writer, l *doppelv1.DeadLetter) {
	columns(w, func(w io.Writer) {
		fmt.Fprintf(w, "ID\t%s\n", l.GetId())
		fmt.Fprintf(w, "Device\t%s\n", orDash(printable(l.GetDevice())))
		fmt.Fprintf(w, "Reason\t%s\n", l.GetReason())
		fmt.Fprintf(w, "Detail\t%s\n", orDash(printable(l.GetDetail())))
		fmt.Fprintf(w, "Received\t%s\n", stamp(l.GetReceiveTime()))
		fmt.Fprintf(w, "Topic\t%s\n", orDash(printable(l.GetSourceTopic())))
		fmt.Fprintf(w, "Content type\t%s\n", orDash(printable(l.GetContentType())))
		fmt.Fprintf(w, "Node\t%s\n", orDash(l.GetNode()))
		fmt.Fprintf(w, "Attempts\t%d\n", l.GetAttempts())
		fmt.Fprintf(w, "Redriven\t%s\n", yesNo(l.GetRedriven()))
		size := fmt.Sprintf("%d bytes", len(l.GetPayload()))
		if of := l.GetTruncatedFrom(); of > 0 {
			size += fmt.Sprintf(", the first of %d", of)
		}
		fmt.Fprintf(w, "Payload\t%s\n", size)
	})
	fmt.Fprintln(w)
	writePayload(w, l.GetPayload())
}
