package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/doppel-iot/doppel/gateway/cli"
)

// ErrUsage wraps what is wrong with flags, environment or configuration file.
var ErrUsage = errors.New("usage")

// Command is `doppel run`.
func Command() *cobra.Command {
	var cfg Config
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node",
		Long: "Run a node. With no brokers configured it has an embedded MQTT broker and an embedded\n" +
			"Kafka log on local disk. Each flag is also a YAML key and an environment variable:\n" +
			"--mqtt-addr, mqtt-addr: and DOPPEL_MQTT_ADDR. Flags win over environment over file.",
		Args: cobra.NoArgs,
	}
	file := settings(cmd.Flags(), &cfg)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := Load(cmd.Flags(), *file, os.Environ()); err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		log, err := newLogger(cmd.ErrOrStderr(), cfg.LogLevel)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		n, err := New(cfg, log)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		ctx, stop := Signals(cmd.Context())
		defer stop()
		return n.Run(ctx)
	}
	return cmd
}

// settings registers --config and every setting.
func settings(fs *pflag.FlagSet, cfg *Config) (file *string) {
	fs.SortFlags = false
	file = fs.String("config", os.Getenv("DOPPEL_CONFIG"), "YAML `FILE` of settings")
	cfg.Flags(fs)
	return file
}

// Signals ends the returned context at the first SIGINT or SIGTERM and the process at the second.
func Signals(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	got := make(chan os.Signal, 2)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-got:
			cancel()
		case <-ctx.Done():
			return
		}
		<-got
		os.Exit(1)
	}()
	return ctx, cancel
}

func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level: %q is not debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: lv})), nil
}

// ConfigCommand is `doppel config print|check`.
func ConfigCommand() *cobra.Command {
	cmd := cli.Group("config", "Show or check the effective configuration")
	for _, sub := range []struct {
		use, short string
		show       bool
	}{
		{"print", "Print the effective configuration, secrets masked", true},
		{"check", "Check the configuration and say what is wrong", false},
	} {
		var cfg Config
		c := &cobra.Command{Use: sub.use, Short: sub.short, Args: cobra.NoArgs}
		file := settings(c.Flags(), &cfg)
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			if err := Load(cmd.Flags(), *file, os.Environ()); err != nil {
				return fmt.Errorf("%w: %w", ErrUsage, err)
			}
			if err := cfg.Validate(); err != nil {
				return fmt.Errorf("%w: %w", ErrUsage, err)
			}
			if !sub.show {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok")
				return err
			}
			cfg.Partitions = cfg.partitions() // the default depends on where the log is
			return printSettings(cmd.OutOrStdout(), cmd.Flags())
		}
		cmd.AddCommand(c)
	}
	return cmd
}

// printSettings writes the settings as the YAML file that would give them.
func printSettings(w io.Writer, fs *pflag.FlagSet) error {
	var doc yaml.Node
	doc.Kind = yaml.MappingNode
	var failed error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" || f.Name == "help" {
			return
		}
		var value yaml.Node
		if err := value.Encode(settingValue(f)); err != nil {
			failed = err
		}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.Name}, &value)
	})
	if failed != nil {
		return fmt.Errorf("print: %w", failed)
	}
	return yaml.NewEncoder(w).Encode(&doc)
}

// settingValue is the value to show: lists as lists, passwords in URLs masked.
func settingValue(f *pflag.Flag) any {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		items := list.GetSlice()
		for i := range items {
			items[i] = maskURL(items[i])
		}
		return items
	}
	switch f.Value.Type() {
	case "bool":
		return f.Value.String() == "true"
	case "int", "int32", "int64":
		var n int64
		_, _ = fmt.Sscan(f.Value.String(), &n) // pflag wrote it
		return n
	}
	return maskURL(f.Value.String())
}

// maskURL hides the password of a URL, also of one without a scheme, as brokers may be given.
func maskURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if scheme += "://"; !ok {
		scheme, rest = "", s
	}
	at := strings.LastIndexByte(rest, '@') // a password may hold one unescaped
	if at < 0 {
		return s
	}
	name, _, hasPassword := strings.Cut(rest[:at], ":")
	if !hasPassword {
		return s
	}
	return scheme + name + ":***" + rest[at:]
}
