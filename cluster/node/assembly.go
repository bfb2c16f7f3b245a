package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/cluster/peers"
	"github.com/doppel-iot/doppel/cluster/router"
	"github.com/doppel-iot/doppel/cluster/rulebook"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/command"
	"github.com/doppel-iot/doppel/gateway/notify"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
	"github.com/doppel-iot/doppel/storage/questdb"
)

// assembly is the node while it is being put together.
type assembly struct {
	cfg     *Config
	log     *slog.Logger
	life    *lifetimes
	metrics *metrics
	adjust  func(*host.Config)

	id          string
	incarnation uint64                 // grows with each start
	ranges      map[string]codec.Range // of metrics; nil: none
	locks       *locks
	addrs       Addresses
	storage     *kafka.Client
	embedded    *kafka.Embedded // nil: the log is elsewhere
	rows        *questdb.Writer // nil: no time series store
	host        *host.Host
	rules       *rulebook.Book
	router      *router.Router
	door        door
	api         *api.API
	fleet       *fleet
	hub         *api.Hub
	commands    *command.Book
	notifier    *notify.Notifier // nil: nobody is told of alerts
	cluster     *cluster         // nil: this node is alone
	alone       *peers.Peers     // of a node that is
	left        bool             // the MQTT session of this node is empty and ends with its connection
}

// build opens and starts everything, what others need first. Listeners that people use are bound
// before anything slow, so that a taken port is known at once.
func (a *assembly) build(ctx context.Context) error {
	grpcListener, httpListener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{a.openData, a.openLocks, a.openLog, a.openJournal, a.openRows, a.keepLog, a.openCluster} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	a.openCommands()
	hub := a.newHub()
	a.hub = hub
	if err := a.openNotify(ctx); err != nil {
		return err
	}
	if err := a.openHost(hub); err != nil {
		return err
	}
	if err := a.openRules(); err != nil {
		return err
	}
	if err := a.openMQTT(ctx); err != nil {
		return err
	}
	if err := a.openDoors(hub, grpcListener, httpListener); err != nil {
		return err
	}
	a.startCluster()
	a.life.start("sweep", a.sweep)
	a.life.closer("record", a.withdraw) // when the session has ended
	a.life.start("mqtt", a.takeInput)   // among the last to start, and the first to stop: input ends before its way does
	a.life.start("commands", a.commands.Run)
	return nil
}

func (a *assembly) listen(ctx context.Context) (grpcListener, httpListener net.Listener, err error) {
	var lc net.ListenConfig
	if grpcListener, err = lc.Listen(ctx, "tcp", a.cfg.GRPCAddr); err != nil {
		return nil, nil, fmt.Errorf("grpc-addr: %w", err)
	}
	a.life.closer("grpc listener", func() error { return ignoreClosed(grpcListener.Close()) })
	if httpListener, err = lc.Listen(ctx, "tcp", a.cfg.HTTPAddr); err != nil {
		return nil, nil, fmt.Errorf("http-addr: %w", err)
	}
	a.life.closer("http listener", func() error { return ignoreClosed(httpListener.Close()) })
	a.addrs.GRPC, a.addrs.HTTP = grpcListener.Addr().String(), httpListener.Addr().String()
	return grpcListener, httpListener, a.listenNode(ctx)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// openData locks the data directory: two nodes on one would share an identity.
func (a *assembly) openData(context.Context) error {
	if err := os.MkdirAll(a.cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	lock := flock.New(filepath.Join(a.cfg.DataDir, "lock"))
	ok, err := lock.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("data-dir: %w", err)
	case !ok:
		return fmt.Errorf("data-dir: %s is in use by another node; stop it or choose another directory", a.cfg.DataDir)
	}
	a.life.closer("data directory", lock.Unlock)
	a.incarnation = uint64(time.Now().UnixNano())
	a.id, err = a.cfg.nodeID()
	return err
}

func (a *assembly) openLog(ctx context.Context) error {
	cfg := kafka.Config{
		Brokers: a.cfg.Kafka, TopicPrefix: a.cfg.TopicPrefix, Partitions: a.cfg.partitions(),
		ClientID: a.id, SASL: a.locks.sasl, Logger: a.log.With("component", "kafka"),
	}
	if a.cfg.KafkaTLS {
		cfg.TLS = a.locks.certs.Client
	}
	if a.cfg.embeddedLog() {
		cfg.DataDir, cfg.RetentionBytes = filepath.Join(a.cfg.DataDir, "log"), a.cfg.EmbeddedRetentionBytes
		embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{
			Addr: a.cfg.KafkaAddr, Advertise: a.cfg.KafkaAdvertise, DataDir: cfg.DataDir, TopicPrefix: a.cfg.TopicPrefix,
			TLS: a.locks.kafka(a.cfg), Fsync: a.cfg.EmbeddedFsync, Logger: a.log.With("component", "embedded_log"),
		})
		if err != nil {
			if op := (*net.OpError)(nil); errors.As(err, &op) {
				return fmt.Errorf("kafka-addr: %w", err)
			}
			return fmt.Errorf("data-dir: %w", err)
		}
		a.life.closer("embedded log", embedded.Close)
		a.embedded, a.addrs.Kafka = embedded, embedded.Addr()
		cfg.Brokers, cfg.Embedded, cfg.Dialer = []string{embedded.Addr()}, true, embedded.Dialer()
	}
	client, err := kafka.Open(ctx, cfg)
	if err != nil {
		return err
	}
	a.life.closer("kafka", client.Close)
	a.storage = client
	return nil
}

// keepLog lets the log remove what nobody needs any more.
func (a *assembly) keepLog(context.Context) error {
	if a.rows != nil {
		a.storage.SetRowsCursor(a.rows.Cursor)
	}
	a.life.start("retention", a.storage.Run)
	return nil
}

// openRows makes the writer of the time series store. Its place in the log is kept in the data directory,
// or, where other nodes write rows of the same log, in Kafka.
func (a *assembly) openRows(ctx context.Context) error {
	if a.cfg.QuestDB == "" {
		return nil
	}
	log, err := a.storage.Identity(ctx)
	if err != nil {
		return err
	}
	var cursors questdb.CursorStore = questdb.NewFileCursors(filepath.Join(a.cfg.DataDir, "questdb-cursor.json"), log+" "+a.cfg.QuestDB)
	if a.cluster != nil {
		cursors = a.storage.RowCursors(a.rowGroup())
	}
	w, err := questdb.New(questdb.Config{
		URL: a.locks.questdb, TLS: a.locks.certs.Client, Node: a.id, Shared: a.cluster != nil, MaxMetrics: a.cfg.QuestDBMaxMetrics, Oldest: a.storage.Oldest,
		Observe: func(_ int, took time.Duration) { a.metrics.observe(stageQuestDB, took) },
	}, a.storage.Changelog(), cursors, a.storage.DeadLetters(), a.log.With("component", "questdb"))
	if err != nil {
		return err
	}
	a.rows = w
	a.life.start("questdb", w.Run)
	return nil
}

// beat is how often partitions of a cluster's node are woken for messages at most: such a node has few for each
// wake-up. With slower reads of MQTT it saves two nodes a seventh of their CPU at 10,000 messages a second. It
// adds some 5 ms between message and acknowledgement, which an embedded node would get nothing for.
const beat = 4 * time.Millisecond

func (a *assembly) openHost(hub *api.Hub) (err error) {
	if a.ranges, err = a.cfg.metricRanges(); err != nil {
		return err
	}
	cfg := host.Config{
		Node: a.id, Incarnation: a.incarnation, Partitions: a.storage.Partitions(),
		Changelog: a.storage.Changelog(), State: a.storage.State(), Ingest: a.storage.Ingest(), DeadLetters: a.storage.DeadLetters(), Alerts: a.storage.AlertLog(), Watchers: watchers{hub, a.commands},
		Rejected: func(device string, r twin.Reason, detail string) { a.door.Rejected(device, r, detail) },
		Devices:  devices{a}, DesiredAnew: a.cfg.embeddedBroker(),
		RefuseUnknown: a.cfg.UnknownDevices == "dead-letter", Ranges: a.ranges, PassivateAfter: a.cfg.passivateAfter(), CheckpointAfter: a.cfg.CheckpointAfter,
		Clock:   func() int64 { return time.Now().UnixNano() },
		Nonce:   nonce,
		Observe: a.metrics.observe,
		Logger:  a.log.With("component", "host"),
	}
	if a.rows != nil {
		cfg.Rows = a.rows
	}
	if a.embedded != nil {
		cfg.Retention = a.storage
	}
	if c := a.cluster; c == nil {
		cfg.Served = a.served
		if err := a.clearAlone(&cfg); err != nil {
			return err
		}
	} else {
		if cfg.Engine, err = c.remote.NewEngine(); err != nil {
			return err
		}
		cfg.Served, cfg.Assigned, cfg.Gateways, cfg.Beat = c.served, c.mover.Assigned, c.peers, beat
	}
	if a.adjust != nil {
		a.adjust(&cfg)
	}
	h, err := host.New(cfg)
	if err != nil {
		return err
	}
	a.host = h
	return nil
}

// record is how others reach this node, and where its messages wait if it dies.
func (a *assembly) record() *doppelv1.NodeRecord {
	n := &doppelv1.NodeRecord{
		Id: a.id, Address: a.advertised(), Incarnation: a.incarnation, Version: Version(), StartTime: time.Now().UnixNano(),
	}
	if !a.cfg.embeddedBroker() {
		n.MqttClientId = a.mqttClientID()
	}
	return n
}

// mqttClientID is this node's name at a real broker, the same after every start.
func (a *assembly) mqttClientID() string { return "doppel-" + a.id }

func nonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// devices are told what is desired through the door, which is opened later than the host.
type devices struct{ a *assembly }

// Desired implements host.Devices.
func (d devices) Desired(device string, payload []byte, done func(error)) {
	d.a.door.Desired(device, payload, done)
}
