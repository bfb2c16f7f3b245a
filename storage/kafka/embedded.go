package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// EmbeddedConfig says where an Embedded log listens and lives.
type EmbeddedConfig struct {
	// Addr is the HOST:PORT to listen on; port 0 takes a free one. "127.0.0.1:9092" if empty.
	Addr string
	// Advertise is the HOST:PORT that clients are told to come to; the listener's if empty. It is
	// needed where Addr names no host (":9092").
	Advertise string
	// TLS encrypts the connections from outside; nil: plain. Those by Dialer need none.
	TLS *tls.Config
	// DataDir keeps the log. It must not be shared: a lock file in it sees to that. Empty: the log
	// is in memory and ends with the process, for tests.
	DataDir string
	// TopicPrefix is that of the clients of this process, "doppel." if empty. Its topic of checkpoints
	// is written to a little longer than the others when the disk is full.
	TopicPrefix string
	// Fsync writes each batch through to the disk before it is acknowledged. Without it an
	// acknowledged record survives the death of the process, not that of the machine.
	Fsync bool
	// Logger gets the broker's warnings; nil: nothing is logged.
	Logger *slog.Logger
}

// Embedded is a log of one node in this process: a broker of the Kafka protocol on local disk, to
// which programs outside may connect as well.
type Embedded struct {
	cluster *kfake.Cluster
	addr    string
	doors   *doors
	lock    *flock.Flock
	guard   *diskGuard // nil: in memory
	once    sync.Once
}

// OpenEmbedded starts the log, with all that was acknowledged before.
func OpenEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	cfg.Addr = cmp.Or(cfg.Addr, "127.0.0.1:9092")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Embedded{}
	if cfg.DataDir != "" {
		e.guard = &diskGuard{dir: cfg.DataDir, log: cfg.Logger, ask: spaceOf}
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.WithLogger(brokerLogger{cfg.Logger, e.guard}),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": neverMillis}),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return e.listen(cfg) }),
	}
	if cfg.DataDir != "" {
		if err := e.take(cfg.DataDir); err != nil {
			return nil, err
		}
		if err := repair(cfg.DataDir); err != nil {
			return nil, errors.Join(fmt.Errorf("embedded log: %w", err), e.release())
		}
		opts = append(opts, kfake.DataDir(cfg.DataDir))
		if cfg.Fsync {
			opts = append(opts, kfake.SyncWrites())
		}
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded log: %w", err), e.release())
	}
	if e.guard != nil {
		cluster.Fault(e.guard.faults(cmp.Or(cfg.TopicPrefix, "doppel."))...)
	}
	e.cluster = cluster
	return e, nil
}

// neverMillis is 100 years: the broker's own cleaner must not run. It compacts by deleting a
// partition's files before it writes new ones (a kill in between loses the partition), and it stops
// the whole broker meanwhile.
const neverMillis = "3153600000000"

// take locks the directory against a second process.
func (e *Embedded) take(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("embedded log: %w", err)
	}
	e.lock = flock.New(filepath.Join(dir, "lock"))
	ok, err := e.lock.TryLock()
	if err != nil {
		return fmt.Errorf("embedded log: lock %s: %w", dir, err)
	}
	if !ok {
		return fmt.Errorf("embedded log: %s is in use by another process", dir)
	}
	return nil
}

func (e *Embedded) release() error {
	if e.lock == nil {
		return nil
	}
	return e.lock.Unlock()
}

func (e *Embedded) listen(cfg EmbeddedConfig) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	e.addr = ln.Addr().String()
	if cfg.TLS != nil {
		ln = tls.NewListener(ln, cfg.TLS)
	}
	e.doors = newDoors(ln, advertised(cmp.Or(cfg.Advertise, e.addr)))
	return e.doors, nil
}

// Addr is the HOST:PORT it listens on.
func (e *Embedded) Addr() string { return e.addr }

// Dialer connects clients of this process without the network, for Config.Dialer: a tenth to a
// seventh less CPU a record.
func (e *Embedded) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return e.doors.dial(ctx) }
}

// Err returns nil while the log takes records, and otherwise why it makes their producers wait. It is
// an ErrDiskFull if there is no room for them.
func (e *Embedded) Err() error {
	if e.guard == nil {
		return nil
	}
	return e.guard.err()
}

// Close stops the log. Nothing acknowledged is lost, with or without it.
func (e *Embedded) Close() error {
	var err error
	e.once.Do(func() {
		e.cluster.Close()
		err = e.release()
	})
	return err
}

// advertised is the address that the broker tells its clients.
type advertised string

// Network implements net.Addr.
func (advertised) Network() string { return "tcp" }

// String implements net.Addr.
func (a advertised) String() string { return string(a) }

// brokerLogger hands on the broker's warnings, and tells the guard of failed writes.
type brokerLogger struct {
	l     *slog.Logger
	guard *diskGuard
}

func (b brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn || level == kfake.LogLevelNone {
		return
	}
	detail := fmt.Sprintf(format, args...)
	if b.guard != nil && strings.HasPrefix(format, "persist batch") {
		b.guard.failed(errors.New(detail))
	}
	lv := slog.LevelWarn
	if level == kfake.LogLevelError {
		lv = slog.LevelError
	}
	b.l.Log(context.Background(), lv, "embedded log", "detail", detail)
}
