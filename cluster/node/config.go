package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/gateway/mqtt"
	"github.com/doppel-iot/doppel/storage/questdb"
)

// Config is everything a node can be told. Each field is a flag, a flat YAML key of the same name
// and an environment variable (--mqtt-addr, mqtt-addr:, DOPPEL_MQTT_ADDR); see Load.
type Config struct {
	NodeID   string
	DataDir  string
	MQTT     []string // broker URLs; none: the embedded broker
	Kafka    []string // HOST:PORT; none: the embedded log
	QuestDB  string   // URL; empty: no time series store
	Group    string
	MQTTRoot string

	TopicPrefix string
	Partitions  int32 // 0: 8 embedded, 64 on Kafka
	Capacity    int   // weight of this node in the assignment of partitions

	GRPCAddr, HTTPAddr, MQTTAddr, KafkaAddr, NodeAddr string
	Advertise                                         string
	KafkaAdvertise                                    string

	Security

	UnknownDevices         string        // accept or dead-letter
	MetricRanges           []string      // NAME=MIN:MAX
	PassivateAfter         time.Duration // 0: never
	CheckpointAfter        time.Duration
	QuestDBMaxMetrics      int
	EmbeddedFsync          bool
	EmbeddedRetentionBytes int64
	AddressesFile          string
	Notify                 string // file of sinks
	LogLevel               string
	Pprof                  bool
}

// Flags registers every setting on fs, with its default.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.NodeID, "node-id", "", "this node's id (default HOST-6hex, kept in DATA/node-id)")
	fs.StringVar(&c.DataDir, "data-dir", "./data", "where the node keeps its data; locked while in use")
	fs.StringSliceVar(&c.MQTT, "mqtt", nil, "MQTT broker `URL`s, mqtt://HOST:PORT or mqtts://…; none: the embedded broker")
	fs.StringSliceVar(&c.Kafka, "kafka", nil, "Kafka brokers, `HOST:PORT`; none: the embedded log")
	fs.StringVar(&c.QuestDB, "questdb", "", "QuestDB `URL`, http://HOST:9000; none: no time series store")
	fs.StringVar(&c.Group, "group", "doppel", "name of the cluster: MQTT share and Kafka consumer group")
	fs.StringVar(&c.MQTTRoot, "topic-root", "devices", "first level of the devices' MQTT topics")
	fs.StringVar(&c.TopicPrefix, "topic-prefix", "doppel.", "prefix of the Kafka topics")
	fs.Int32Var(&c.Partitions, "partitions", 0, "partitions, fixed when the topics are made (default 8 embedded, 64 on Kafka)")
	fs.IntVar(&c.Capacity, "capacity", 1, "weight of this node: of two nodes, one with 2 gets two thirds of the partitions; 0: none")
	fs.StringVar(&c.GRPCAddr, "grpc-addr", "127.0.0.1:9090", "where gRPC listens")
	fs.StringVar(&c.HTTPAddr, "http-addr", "127.0.0.1:8080", "where JSON, the page, metrics and health listen")
	fs.StringVar(&c.MQTTAddr, "mqtt-addr", "127.0.0.1:1883", "where the embedded broker listens")
	fs.StringVar(&c.KafkaAddr, "kafka-addr", "127.0.0.1:9092", "where the embedded log listens")
	fs.StringVar(&c.KafkaAdvertise, "kafka-advertise", "", "address that clients of the embedded log are told (default kafka-addr)")
	fs.StringVar(&c.NodeAddr, "node-addr", "127.0.0.1:7946", "where other nodes reach this one")
	fs.StringVar(&c.Advertise, "advertise", "", "address that other nodes are told (default node-addr)")
	c.flags(fs)
	fs.StringVar(&c.UnknownDevices, "unknown-devices", "accept", "telemetry of devices without a twin: accept or dead-letter")
	fs.StringSliceVar(&c.MetricRanges, "metric-range", nil, "`NAME=MIN:MAX` of a metric: a sample with a value outside is a dead letter; either bound may be left out")
	fs.DurationVar(&c.CheckpointAfter, "checkpoint-after", time.Minute, "how long a changed twin waits for its checkpoint; longer: less writing, longer restarts after a crash")
	fs.DurationVar(&c.PassivateAfter, "passivate-after", 10*time.Minute, "how long a twin must be silent to be kept in its compact form; 0: never")
	fs.IntVar(&c.QuestDBMaxMetrics, "questdb-max-metrics", 200, "metric columns in QuestDB; further metrics go to telemetry_long")
	fs.BoolVar(&c.EmbeddedFsync, "embedded-fsync", false, "fsync every batch of the embedded log (survives a power cut)")
	fs.Int64Var(&c.EmbeddedRetentionBytes, "embedded-retention-bytes", 4<<30, "how much the embedded log keeps, never past what a restore needs")
	fs.StringVar(&c.Notify, "notify", "", "YAML `FILE` of webhooks and Alertmanagers that are told of alerts")
	fs.StringVar(&c.AddressesFile, "addresses-file", "", "`FILE` that gets the addresses really bound, as JSON, once ready")
	fs.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.BoolVar(&c.Pprof, "pprof", false, "serve profiles under /debug/pprof/ on http-addr")
}

// embeddedLog says whether the log runs in this process.
func (c *Config) embeddedLog() bool { return len(c.Kafka) == 0 }

// embeddedBroker says whether the MQTT broker runs in this process.
func (c *Config) embeddedBroker() bool { return len(c.MQTT) == 0 }

// partitions is the number of partitions to ask for.
func (c *Config) partitions() int32 {
	switch {
	case c.Partitions != 0:
		return c.Partitions
	case c.embeddedLog():
		return 8
	default:
		return 64
	}
}

// passivateAfter is the setting as the host takes it.
func (c *Config) passivateAfter() time.Duration {
	if c.PassivateAfter == 0 {
		return -1
	}
	return c.PassivateAfter
}

// Validate finds everything that is wrong, each with its key and the remedy.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Partitions < 0 || c.Partitions > 4096 {
		bad("partitions: %d is out of range, want 1 to 4096", c.Partitions)
	}
	if c.Capacity < 0 || c.Capacity > 1000 {
		bad("capacity: %d is out of range, want 0 to 1000", c.Capacity)
	}
	if c.UnknownDevices != "accept" && c.UnknownDevices != "dead-letter" {
		bad("unknown-devices: %q is neither accept nor dead-letter", c.UnknownDevices)
	}
	errs = append(errs, c.validateServices()...)
	if _, err := c.metricRanges(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.sinks(); err != nil {
		errs = append(errs, err)
	}
	if c.EmbeddedRetentionBytes < 1<<20 {
		bad("embedded-retention-bytes: %d is less than 1 MiB", c.EmbeddedRetentionBytes)
	}
	if c.CheckpointAfter <= 0 {
		bad("checkpoint-after: %v is not positive; 1m is the default", c.CheckpointAfter)
	}
	if c.PassivateAfter < 0 {
		bad("passivate-after: %v is negative; 0 means never", c.PassivateAfter)
	}
	if c.QuestDBMaxMetrics < 1 {
		bad("questdb-max-metrics: %d, want at least 1", c.QuestDBMaxMetrics)
	}
	errs = append(errs, c.validateSecurity()...)
	return errors.Join(errs...)
}

// validateServices finds what can be said of the addresses of services without asking them.
func (c *Config) validateServices() []error {
	var errs []error
	if len(c.MQTT) > 0 {
		if err := mqtt.CheckURLs(c.MQTT); err != nil {
			errs = append(errs, fmt.Errorf("mqtt: %w", err))
		}
	}
	for _, broker := range c.Kafka {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || port == "" || strings.ContainsAny(broker, "@/") {
			errs = append(errs, fmt.Errorf("kafka: %q is not HOST:PORT; user and password are kafka-sasl-user and kafka-sasl-password-file", broker[strings.LastIndexByte(broker, '@')+1:]))
		}
	}
	if c.QuestDB != "" {
		if err := (questdb.Config{URL: c.QuestDB}).Validate(); err != nil {
			errs = append(errs, fmt.Errorf("questdb: %w", err))
		}
	}
	return errs
}

// listens are the addresses this node will listen on, by key.
func (c *Config) listens() map[string]string {
	l := map[string]string{"grpc-addr": c.GRPCAddr, "http-addr": c.HTTPAddr}
	if c.embeddedBroker() {
		l["mqtt-addr"] = c.MQTTAddr
	}
	if c.embeddedLog() {
		l["kafka-addr"] = c.KafkaAddr
	} else {
		l["node-addr"] = c.NodeAddr
	}
	return l
}

// nodeID is the configured id, or the one kept in the data directory, made on first use.
func (c *Config) nodeID() (string, error) {
	if c.NodeID != "" {
		return c.NodeID, nil
	}
	file := filepath.Join(c.DataDir, "node-id")
	if b, err := os.ReadFile(file); err == nil && len(strings.TrimSpace(string(b))) > 0 { //nolint:gosec // in our own data directory
		return strings.TrimSpace(string(b)), nil
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "node"
	}
	suffix := make([]byte, 3)
	if _, err := rand.Read(suffix); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	id := hostname + "-" + hex.EncodeToString(suffix)
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	return id, nil
}
