package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// topLetters is how many letters, the newest, dlq top goes through.
const topLetters = 100_000

// ranking is what dlq top shows.
type ranking struct {
	Letters  int    `json:"letters,string"` // gone through
	Reasons  []rank `json:"reasons"`
	Devices  []rank `json:"devices"`
	Firmware []rank `json:"firmware"`
}

// rank is a name, how many letters have it, and which reason most of them.
type rank struct {
	Name   string `json:"name"`
	Count  uint64 `json:"count,string"`
	Reason string `json:"reason,omitempty"`
}

func dlqTop(o *options) *cobra.Command {
	var filter string
	var limit int
	cmd := &cobra.Command{
		Use: "top", Short: "Show what most dead letters have in common: reason, device, firmware", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Show what most dead letters have in common: reason, device, firmware. It goes through the newest %d\n", topLetters) +
			"that pass the filter. The firmware is what a device's twin knows now (reported.firmware).",
	}
	cmd.Flags().StringVar(&filter, "filter", "", letterFilterUsage)
	cmd.Flags().IntVar(&limit, "limit", 10, "at most so many of each; 0: all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usagef("--limit: %d is negative", limit)
		}
		return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			mask := &fieldmaskpb.FieldMask{Paths: []string{"device", "reason"}}
			letters, total, err := lettersOf(ctx, conn, &doppelv1.ListDeadLettersRequest{Filter: filter, ReadMask: mask}, topLetters)
			if err != nil {
				return err
			}
			r, err := rankLetters(ctx, conn, letters, limit)
			if err != nil {
				return err
			}
			if uint64(len(letters)) < total {
				fmt.Fprintf(cmd.ErrOrStderr(), "of the newest %d of %d letters\n", len(letters), total)
			}
			if o.table() {
				r.write(cmd.OutOrStdout())
				return nil
			}
			b, err := json.Marshal(r)
			if err != nil {
				return fmt.Errorf("json: %w", err)
			}
			return o.write(cmd.OutOrStdout(), b)
		})
	}
	return cmd
}

// tally counts letters by a name, and by reason within it.
type tally map[string]map[string]uint64

func (t tally) add(name, reason string) {
	if t[name] == nil {
		t[name] = map[string]uint64{}
	}
	t[name][reason]++
}

// ranks are the limit (0: all) largest counts.
func (t tally) ranks(limit int) []rank {
	all := make([]rank, 0, len(t))
	for name, reasons := range t {
		r := rank{Name: name}
		var most uint64
		for _, reason := range slices.Sorted(maps.Keys(reasons)) {
			n := reasons[reason]
			r.Count += n
			if n > most {
				most, r.Reason = n, reason
			}
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b rank) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

func rankLetters(ctx context.Context, conn *grpc.ClientConn, letters []*doppelv1.DeadLetter, limit int) (*ranking, error) {
	reasons, devices, firmwares := tally{}, tally{}, tally{}
	for _, l := range letters {
		reasons.add(l.GetReason(), "")
		devices.add(l.GetDevice(), l.GetReason())
	}
	firmware, err := firmwareOf(ctx, conn, slices.Collect(maps.Keys(devices)))
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		firmwares.add(firmware[l.GetDevice()], l.GetReason())
	}
	return &ranking{Letters: len(letters), Reasons: reasons.ranks(limit), Devices: devices.ranks(limit), Firmware: firmwares.ranks(limit)}, nil
}

// firmwareOf is what the twins of devices report; those without are left out.
func firmwareOf(ctx context.Context, conn *grpc.ClientConn, devices []string) (map[string]string, error) {
	devices = slices.DeleteFunc(devices, func(id string) bool { return !codec.ValidDevice([]byte(id)) })
	client := doppelv1.NewTwinServiceClient(conn)
	firmware := make(map[string]string)
	for ids := range slices.Chunk(devices, 1000) {
		r, err := client.BatchGetTwins(ctx, &doppelv1.BatchGetTwinsRequest{Ids: ids, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"id", "reported.firmware"}}})
		if err != nil {
			return nil, err
		}
		for _, t := range r.GetTwins() {
			if v, ok := t.GetReported().GetFields()["firmware"]; ok {
				if s, ok := v.AsInterface().(string); ok {
					firmware[t.GetId()] = s
				} else if b, err := toJSON(v); err == nil {
					firmware[t.GetId()] = string(b)
				}
			}
		}
	}
	return firmware, nil
}

func (r *ranking) write(w io.Writer) {
	for i, part := range []struct {
		title, none string
		ranks       []rank
		reason      bool
	}{
		{"REASON", "-", r.Reasons, false},
		{"DEVICE", "(not known)", r.Devices, true},
		{"FIRMWARE", "(not known)", r.Firmware, true},
	} {
		if i > 0 {
			fmt.Fprintln(w)
		}
		columns(w, func(w io.Writer) {
			fmt.Fprint(w, part.title, "\tLETTERS")
			if part.reason {
				fmt.Fprint(w, "\tMOSTLY")
			}
			fmt.Fprintln(w)
			for _, k := range part.ranks {
				name := printable(k.Name)
				if name == "" {
					name = part.none
				}
				fmt.Fprintf(w, "%s\t%d", name, k.Count)
				if part.reason {
					fmt.Fprintf(w, "\t%s", k.Reason)
				}
				fmt.Fprintln(w)
			}
		})
	}
}
