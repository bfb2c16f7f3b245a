package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/doppel-iot/doppel/cluster/node"
)

// Command is `doppel demo`: `doppel run` with embedded broker and log, and a fleet.
func Command() *cobra.Command {
	var (
		settings node.Config
		fleet    Config
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a node with a simulated fleet and the live page",
		Long: "Run a node with embedded broker and log, a simulated fleet and recorded sensor series beside\n" +
			"it, and the live page. Takes the settings of `doppel run`. Twins are kept in --data-dir.",
		Args: cobra.NoArgs,
	}
	settings.Flags(cmd.Flags())
	cmd.Flags().IntVar(&fleet.Devices, "devices", 200, "simulated devices beside the recorded series")
	cmd.Flags().Float64Var(&fleet.Rate, "rate", 1, "samples per second and simulated device")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := node.Load(cmd.Flags(), "", os.Environ()); err != nil {
			return fmt.Errorf("%w: %w", node.ErrUsage, err)
		}
		if fleet.Devices < 1 || fleet.Rate <= 0 {
			return fmt.Errorf("%w: devices and rate must be positive", node.ErrUsage)
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(settings.LogLevel)); err != nil {
			return fmt.Errorf("%w: log-level: %w", node.ErrUsage, err)
		}
		fleet.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
		n, err := node.New(settings, fleet.Log)
		if err != nil {
			return fmt.Errorf("%w: %w", node.ErrUsage, err)
		}
		ctx, stop := node.Signals(cmd.Context())
		defer stop()
		return run(ctx, n, settings.MQTT, fleet, cmd.OutOrStdout())
	}
	return cmd
}

// run starts the fleet once the node is ready, and ends both when either fails or ctx ends. The
// fleet goes first, so that the node stops with nothing on its way.
func run(ctx context.Context, n *node.Node, brokers []string, cfg Config, out io.Writer) error {
	serving, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	sending, stopFleet := context.WithCancel(ctx)
	defer stopFleet()

	var nodeErr error
	var wait sync.WaitGroup
	wait.Go(func() {
		nodeErr = n.Run(serving)
		stopFleet()
	})
	fleetErr := func() error {
		select {
		case <-sending.Done():
			return nil
		case at := <-n.Ready():
			broker := "mqtt://" + at.MQTT
			if len(brokers) > 0 {
				broker = brokers[0]
			}
			if _, err := fmt.Fprintf(out, "watch %d simulated pumps and 5 recorded sensors at http://%s/\n", cfg.Devices, at.HTTP); err != nil {
				return err
			}
			return Fleet(sending, broker, cfg)
		}
	}()
	stopNode()
	wait.Wait()
	return errors.Join(nodeErr, fleetErr)
}
