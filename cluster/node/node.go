// Package node is the composition root: the one place that knows every part of a node and introduces
// them to each other. It decides lifetimes and the order of start and stop, nothing else.
//
//	devices ──▶ gateway/mqtt ──▶ cluster/router ──▶ actors/host ──▶ storage/kafka (changelog, alerts, dlq)
//	                                                    │  ▲              │
//	                                       gateway/api  ◀──┘ reader       ▼
//	                              people ◀─ gateway/web      storage/questdb (rows)
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/gateway/mqtt"
)

// Addresses are those a node really listens on; empty: it does not.
type Addresses struct {
	GRPC  string `json:"grpc"`
	HTTP  string `json:"http"`
	MQTT  string `json:"mqtt"`
	Kafka string `json:"kafka"`
	Node  string `json:"node"`
}

// Node is one node of a cluster.
type Node struct {
	cfg   Config
	log   *slog.Logger
	ready chan Addresses

	adjust func(*host.Config) // nil: as configured; faults in tests
}

// door is the MQTT side of a node: a client of real brokers, or a broker itself.
type door interface {
	Run(ctx context.Context) error
	Ready() error
	Clear(ctx context.Context) error
	Stats() *mqtt.Stats
	Sweep(ctx context.Context) error
	Desired(device string, payload []byte, done func(error))
	Rejected(device string, reason twin.Reason, detail string)
	Command(ctx context.Context, cmd *mqtt.Command) error
}

// New checks the configuration. It starts nothing.
func New(cfg Config, log *slog.Logger) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, log: log, ready: make(chan Addresses, 1)}, nil
}

// Adjust lets f change how partitions are run; call it before Run. It is for tests, which bring rules and
// faults of their own.
func (n *Node) Adjust(f func(*host.Config)) { n.adjust = f }

// Ready gives the addresses once the node is ready for the first time.
func (n *Node) Ready() <-chan Addresses { return n.ready }

// Run serves until ctx ends, then hands over and drains.
func (n *Node) Run(ctx context.Context) error {
	if err := removeAddresses(n.cfg.AddressesFile); err != nil {
		return err
	}
	l := newLifetimes(n.log)
	defer l.stopAll()
	a := &assembly{cfg: &n.cfg, log: n.log, life: l, metrics: newMetrics(), adjust: n.adjust}
	if err := a.build(ctx); err != nil {
		return err
	}
	l.start("collector", tuneCollector)
	l.start("readiness", func(ctx context.Context) error { return n.announce(ctx, a) })
	select {
	case <-ctx.Done():
		n.log.InfoContext(ctx, "stopping")
		a.leave(context.WithoutCancel(ctx))
		return nil
	case err := <-l.failed:
		return err
	}
}

// announce keeps the health services current, and says once that the node is ready.
func (n *Node) announce(ctx context.Context, a *assembly) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	announced := false
	for {
		err := a.ready()
		a.api.SetServing(err == nil)
		if err == nil && !announced {
			announced = true
			if err := writeAddresses(n.cfg.AddressesFile, a.addrs); err != nil {
				return err
			}
			n.log.InfoContext(ctx, "ready", "grpc", a.addrs.GRPC, "http", a.addrs.HTTP, "mqtt", a.addrs.MQTT, "kafka", a.addrs.Kafka)
			n.ready <- a.addrs
			t.Reset(500 * time.Millisecond)
		}
		select {
		case <-ctx.Done():
			a.api.SetServing(false)
			return nil
		case <-t.C:
		}
	}
}

// removeAddresses takes away what an earlier run wrote: who waits for the file waits for this run.
func removeAddresses(file string) error {
	if err := os.Remove(file); file != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("addresses-file: %w", err)
	}
	return nil
}

func writeAddresses(file string, addrs Addresses) error {
	if file == "" {
		return nil
	}
	b, err := json.Marshal(addrs)
	if err != nil {
		return fmt.Errorf("addresses-file: %w", err)
	}
	// A reader must never see half of it.
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil { //nolint:gosec // meant to be read by others
		return fmt.Errorf("addresses-file: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("addresses-file: %w", err)
	}
	return nil
}
