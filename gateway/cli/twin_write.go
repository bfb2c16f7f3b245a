package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxDesiredText bounds what is read of standard input.
const maxDesiredText = 1 << 20

func twinSetDesired(o *options) *cobra.Command {
	var etag string
	var create bool
	cmd := &cobra.Command{
		Use: "set-desired ID JSON", Short: "Change what is desired of a device: a merge patch, - for standard input", Args: exactly("ID", "JSON"),
		Example: "  doppel twin set-desired pump-1 '{\"rate\": 10, \"old\": null}'",
	}
	writeFlags(cmd, &etag, &create)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := []byte(args[1])
		if args[1] == "-" {
			var err error
			if text, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxDesiredText)); err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
		}
		desired := new(structpb.Struct)
		if err := protojson.Unmarshal(text, desired); err != nil {
			return usagef("JSON: want an object such as {\"rate\": 10}: %w", err)
		}
		return o.updateTwin(cmd, &doppelv1.UpdateTwinRequest{
			Twin: &doppelv1.Twin{Id: args[0], Desired: desired}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"desired"}}, Etag: etag, AllowMissing: create,
		})
	}
	return cmd
}

func twinSetTags(o *options) *cobra.Command {
	var etag string
	var create bool
	cmd := &cobra.Command{
		Use: "set-tags ID [KEY=VALUE...]", Short: "Give a twin these tags, and no others", Args: atLeast(1, "ID"),
	}
	writeFlags(cmd, &etag, &create)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tags, removed, err := parseTags(args[1:])
		switch {
		case err != nil:
			return err
		case len(removed) > 0:
			return usagef("%s-: set-tags removes all others anyway; use `doppel twin tag` for single ones", removed[0])
		}
		return o.updateTwin(cmd, &doppelv1.UpdateTwinRequest{
			Twin: &doppelv1.Twin{Id: args[0], Tags: tags}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tags"}}, Etag: etag, AllowMissing: create,
		})
	}
	return cmd
}

func twinTag(o *options) *cobra.Command {
	var etag string
	var create bool
	cmd := &cobra.Command{
		Use: "tag ID KEY=VALUE|KEY-...", Short: "Set and remove single tags", Args: atLeast(2, "ID", "KEY=VALUE or KEY-"),
		Example: "  doppel twin tag pump-1 site=brno line-",
	}
	writeFlags(cmd, &etag, &create)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tags, removed, err := parseTags(args[1:])
		if err != nil {
			return err
		}
		mask := &fieldmaskpb.FieldMask{}
		for key := range tags {
			mask.Paths = append(mask.Paths, "tags."+key)
		}
		for _, key := range removed {
			mask.Paths = append(mask.Paths, "tags."+key)
		}
		return o.updateTwin(cmd, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: args[0], Tags: tags}, UpdateMask: mask, Etag: etag, AllowMissing: create})
	}
	return cmd
}

func twinDelete(o *options) *cobra.Command {
	var etag string
	cmd := &cobra.Command{Use: "delete ID", Short: "Delete a twin; a new message of its device makes a fresh one", Args: exactly("ID")}
	cmd.Flags().StringVar(&etag, "etag", "", "`ETAG` that the twin must still have")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			if _, err := doppelv1.NewTwinServiceClient(conn).DeleteTwin(ctx, &doppelv1.DeleteTwinRequest{Id: args[0], Etag: etag}); err != nil {
				return err
			}
			return o.printOne(cmd.OutOrStdout(), &emptypb.Empty{}, func(w io.Writer) { fmt.Fprintf(w, "deleted %s\n", args[0]) })
		})
	}
	return cmd
}

func writeFlags(cmd *cobra.Command, etag *string, create *bool) {
	cmd.Flags().StringVar(etag, "etag", "", "`ETAG` that the twin must still have")
	cmd.Flags().BoolVar(create, "create", false, "make the twin if there is none")
}

func (o *options) updateTwin(cmd *cobra.Command, req *doppelv1.UpdateTwinRequest) error {
	return o.call(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
		t, err := doppelv1.NewTwinServiceClient(conn).UpdateTwin(ctx, req)
		if err != nil {
			return err
		}
		return o.printOne(cmd.OutOrStdout(), t, func(w io.Writer) { describeTwin(w, t) })
	})
}

// parseTags reads KEY=VALUE and KEY- arguments.
func parseTags(args []string) (tags map[string]string, removed []string, err error) {
	tags = make(map[string]string)
	for _, arg := range args {
		key, value, set := strings.Cut(arg, "=")
		bare, minus := strings.CutSuffix(arg, "-")
		switch {
		case set && key != "":
			tags[key] = value
		case !set && minus && bare != "":
			removed = append(removed, bare)
		default:
			return nil, nil, usagef("%q: want KEY=VALUE, or KEY- to remove a tag", arg)
		}
	}
	return tags, removed, nil
}

// atLeast wants n arguments or more.
func atLeast(n int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("got %d arguments, want %v", len(args), names)
		}
		return nil
	}
}

// compactJSON is a Struct as people read it on a line.
func compactJSON(s *structpb.Struct) string {
	b, err := json.Marshal(s.AsMap())
	if err != nil {
		return "?"
	}
	return string(b)
}
