// Package cli is the people's side of doppel: commands that are clients of the gRPC API, and tools
// that need no node. It never touches a broker, a log or a database.
package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// options are the flags that every client command shares.
type options struct {
	addr   string
	output string
	now    func() time.Time
	who    auth.Client
}

// Root is the doppel command with all client commands; the caller adds those that run something.
func Root() *cobra.Command { return newRoot(time.Now) }

// newRoot is Root by a clock that tables are relative to.
func newRoot(now func() time.Time) *cobra.Command {
	o := options{now: now}
	root := &cobra.Command{
		Use:   "doppel",
		Short: "Live digital twins of a device fleet",
		Long: "Doppel keeps a live twin of every device of a fleet: fed from MQTT, ordered and checked,\n" +
			"with baselines and alerts, queried and watched over gRPC.\n\n" +
			"Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not found, 4 unavailable.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(flagError)
	addr := os.Getenv("DOPPEL_ADDR")
	if addr == "" {
		addr = "localhost:9090"
	}
	for _, cmd := range []*cobra.Command{twinCommand(&o), commandCommand(&o), alertsCommand(&o), rulesCommand(&o), clusterCommand(&o), dlqCommand(&o), auditCommand(&o), replayCommand(&o)} {
		cmd.PersistentFlags().StringVar(&o.addr, "addr", addr, "`HOST:PORT` of any node's gRPC door, several with commas (env DOPPEL_ADDR)")
		identify(cmd.PersistentFlags(), &o.who)
		cmd.PersistentFlags().StringVarP(&o.output, "output", "o", "table", "table, wide, json or yaml")
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // it was just made
		cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return o.check() }
		root.AddCommand(cmd)
	}
	root.AddCommand(detectCommand(), mqttCommand(), versionCommand())
	o.complete(root)
	exemplify(root)
	return root
}

func (o *options) check() error {
	switch o.output {
	case "table", "wide", "json", "yaml":
		return checkAddr(o.addr)
	}
	return usagef("--output: %q is not table, wide, json or yaml", o.output)
}

// usageError is a mistake in how a command was called.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// exactly wants n arguments, named for the message.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("got %d arguments, want %v", len(args), names)
		}
		return nil
	}
}

// Group is a command that only holds others.
func Group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%s: unknown command %q", cmd.CommandPath(), args[0])
			}
			return errors.Join(cmd.Help(), &usageError{errors.New("a command is missing")})
		},
	}
}
