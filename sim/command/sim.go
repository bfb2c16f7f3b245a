// Package command is `doppel sim`: flags, the order of a run, and its exit code. What a fleet sends
// is in package fleet, what is made of it in package oracle.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
)

const (
	connectLimit = 10 * time.Second
	manyConns    = 50
)

// Sim is `doppel sim`. Its errors carry their exit code (ExitError).
func Sim() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a fleet and check what became of its samples",
		Long: "Simulate a fleet over real MQTT 5 connections: seeded devices with labelled anomalies, or\n" +
			"recorded series. Everything is sent until it is acknowledged. With --verify every device's\n" +
			"digests are compared with its twin's, and Kafka, QuestDB, dead letters and alerts with what\n" +
			"was sent.\n\n" +
			"Exit code 0: nothing acknowledged is lost, doubled or out of order, and everything was\n" +
			"acknowledged. 1: a difference. 2: wrong usage. 4: broker or node not reachable.",
		Example: "  doppel sim --devices 1000 --rate 10 --duration 60s \\\n" +
			"    --faults dup=0.05,reorder=0.05,drop-conn=0.01,poison=0.01 --verify --kafka 127.0.0.1:9092\n" +
			"  doppel sim --replay ./recordings --speed 60 --duration 10m",
		Args: cobra.NoArgs,
	}
	o.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Replay != "" && !cmd.Flags().Changed("devices") {
			o.Devices = 0
		}
		if err := o.check(); err != nil {
			return &ExitError{Code: exitUsage, Err: err}
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		// The first signal ends the sending; without the handler a second one ends the process.
		context.AfterFunc(ctx, stop)
		defer stop()
		log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		return Run(ctx, &o, cmd.OutOrStdout(), cmd.ErrOrStderr(), log)
	}
	return cmd
}

// Run is one run of the simulator.
func Run(ctx context.Context, o *Options, out, progressOut io.Writer, log *slog.Logger) error {
	usage := func(err error) error { return &ExitError{Code: exitUsage, Err: err} }
	faults, skew, err := parseFaults(o.Faults)
	if err != nil {
		return usage(err)
	}
	if o.Boot == 0 {
		o.Boot = uint64(time.Now().UnixMilli())
	}
	crowd, err := newCrowd(o, skew)
	if err != nil {
		return usage(err)
	}
	keys, err := o.keys()
	if err != nil {
		return usage(err)
	}
	cfg := fleet.Config{
		Broker: o.Broker, TLS: keys.broker, User: o.MQTTUser, Password: keys.password, Connections: o.connections(len(crowd.ids)), Inflight: o.Inflight,
		Format: fleet.Format(o.Format), Batch: o.Batch, TopicRoot: o.TopicRoot,
		ClientID: fmt.Sprintf("doppel-sim-%x", o.Boot), Seed: o.Seed, Faults: faults, Settle: o.Settle, Log: log,
		Interactive: o.Interactive, Version: o.version(),
	}
	if _, err := fleet.New(cfg); err != nil {
		return usage(err)
	}
	judge, err := oracle.Open(ctx, oracle.Config{
		GRPC: o.GRPC, HTTP: o.HTTP, Kafka: o.Kafka, TopicPrefix: o.TopicPrefix, QuestDB: o.QuestDB,
		Boot: o.Boot, IDs: crowd.ids, Interval: crowd.interval, Verify: o.Verify, Dial: keys.dial, TLS: keys.node, Token: keys.token, Log: log,
	})
	if err != nil {
		return &ExitError{Code: exitUnreachable, Err: err}
	}
	defer judge.Close()
	cfg.Observer = judge.Observer()
	f, err := fleet.New(cfg)
	if err != nil {
		return usage(err)
	}
	connecting, cancel := context.WithTimeout(ctx, connectLimit)
	err = f.Connect(connecting)
	cancel()
	if err != nil {
		return &ExitError{Code: exitUnreachable, Err: err}
	}

	start := time.Now()
	sources, until, err := crowd.start(start, judge.Base)
	if err != nil {
		return usage(err)
	}
	if o.Quiet {
		progressOut = nil
	}
	shown := startProgress(ctx, f, progressOut)
	result := f.Run(ctx, sources, until)
	took := time.Since(start)
	account := shown.finish()

	r := &oracle.Report{
		Devices: len(sources), Boot: o.Boot, Seed: o.Seed,
		Sent: account.Sent, Acked: account.Acked, Rate: float64(account.Acked) / took.Seconds(),
		LatencyMS: oracle.Latencies{Puback: oracle.PercentilesOf(shown.latency)},
		Messages:  account.Messages, Resent: account.Resent, DuplicatesSent: account.Duplicates,
		SwapsSent: account.Swapped, Cuts: account.Cuts, PoisonSent: account.PoisonSent, Refusals: account.Refusals,
		Skipped: []string{}, Findings: []string{},
	}
	devices := crowd.devices(result)
	judge.Check(context.WithoutCancel(ctx), r, devices, &account)
	return conclude(r, devices, o.Report, out)
}

// conclude writes the report and decides the exit code.
func conclude(r *oracle.Report, devices []oracle.Device, file string, out io.Writer) error {
	unacked := 0
	for _, d := range devices {
		unacked += len(d.Unacked)
	}
	if unacked > 0 {
		r.Findings = append(r.Findings, fmt.Sprintf("not acknowledged: %d samples within --settle", unacked))
	}
	if err := r.Print(out); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if file != "" {
		if err := r.WriteFile(file); err != nil {
			return err
		}
	}
	if len(r.Findings) > 0 {
		return &ExitError{Code: exitDifferent, Err: errors.New("the run shows differences: " + r.Findings[0])}
	}
	return nil
}

func (o *Options) version() fleet.Version {
	if o.MQTTVersion == "3.1.1" {
		return fleet.V311
	}
	return fleet.V5
}

func (o *Options) connections(devices int) int {
	if o.Connections > 0 {
		return min(o.Connections, devices)
	}
	return min(manyConns, devices)
}
