package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func detectCommand() *cobra.Command {
	var detector, data, out string
	cmd := &cobra.Command{
		Use: "detect --data DIR --out DIR", Short: "Run a detector over recorded series",
		Long: "Run a detector of the core over recorded series: every CSV file below --data with the columns\n" +
			"timestamp,value gives one below --out with the column anomaly_score added.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if data == "" || out == "" {
				return usagef("--data and --out: both are needed")
			}
			if _, err := newDetector(detector); err != nil {
				return usagef("--detector: %w", err)
			}
			return Detect(detector, data, out)
		},
	}
	cmd.Flags().StringVar(&detector, "detector", "zscore", "`NAME` of the detector")
	cmd.Flags().StringVar(&data, "data", "", "`DIR` of recorded series")
	cmd.Flags().StringVar(&out, "out", "", "`DIR` for the scores")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, revision := "(devel)", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = " " + s.Value
					}
				}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "doppel %s%s %s %s/%s\n", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// interrupted ends at SIGINT or SIGTERM.
func interrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
