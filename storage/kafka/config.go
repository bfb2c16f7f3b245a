// Package kafka keeps Doppel's logs in Kafka, or in the embedded log that speaks its protocol.
//
// It makes and checks the topics (topics.go), and implements the ports of actors/host on them: the
// changelog (changelog.go, reader.go), the dead letters (letters.go) and the alert log (alerts.go).
// Embedded (embedded.go) is the log of a node without Kafka: the same protocol on local disk.
//
// It does not decide who owns a partition, does not interpret records and keeps no state of twins:
// what a record means, and whether it is void, is the business of actors/host.
//
// Every exported method may be called from any goroutine.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
)

// Partitions of ingest, telemetry, state and alerts where nothing else is asked for. Few on the
// embedded log, where a partition costs a file to write (and to fsync) for each batch.
const (
	DefaultPartitions  = 64
	EmbeddedPartitions = 8
)

// Config says where the log is and how it is used. The zero value of every field but Brokers is usable.
type Config struct {
	// Brokers are the HOST:PORT to begin with. Required.
	Brokers []string
	// TopicPrefix begins every topic's name; "doppel." if empty.
	TopicPrefix string
	// Partitions of ingest, telemetry, state and alerts, fixed when the topics are made; 0 means
	// EmbeddedPartitions if Embedded, else DefaultPartitions.
	Partitions int32
	// ReplicationFactor of topics made here; 0 or -1 leaves it to the broker.
	ReplicationFactor int16
	// Embedded says that the broker is an Embedded log: nothing in it expires by the broker's own
	// rules (topics.go says why); Client.Run removes instead what is too old.
	Embedded bool
	// DataDir is the EmbeddedConfig.DataDir of that log: its size is read there, and what is known of
	// where it was trimmed is kept there. Empty: its size is not bounded.
	DataDir string
	// RetentionBytes is how large an embedded log may be, all topics together; 0 means 4 GiB. What a
	// restore needs and rows that are not stored are kept even where that is more, and the newest
	// segment of each partition is.
	RetentionBytes int64
	// Linger is how long a batch that is not full waits for more records. 0 means 4 ms, which costs
	// that much latency and halves the CPU of a record at 20,000 records/s; negative: none.
	Linger time.Duration
	// InFlight is the most unacknowledged records a partition may have before Append blocks; 0
	// means 8,192. It bounds memory (about 250 bytes a record besides its key and value) for each
	// partition by itself, so that one that cannot be written does not stop the others.
	InFlight int
	// ClientID is shown in the broker's logs; "doppel" if empty.
	ClientID string
	// TLS encrypts the connections; nil: plain. It is asked for every connection: certificates are renewed.
	TLS func() *tls.Config
	// SASL says who this is; nil: nobody asks.
	SASL sasl.Mechanism
	// Dialer replaces the network, as for Embedded.Dialer; nil: TCP. With it TLS is its business.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets what the client reports; nil: nothing is logged.
	Logger *slog.Logger
}

// validate fills the defaults.
func (c *Config) validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("kafka: no brokers")
	}
	if c.Partitions < 0 {
		return fmt.Errorf("kafka: %d partitions", c.Partitions)
	}
	if c.TopicPrefix == "" {
		c.TopicPrefix = "doppel."
	}
	if strings.Trim(c.TopicPrefix, topicAlphabet) != "" {
		return fmt.Errorf("kafka: topic prefix %q: only letters, digits, '.', '_' and '-'", c.TopicPrefix)
	}
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
		if c.Embedded {
			c.Partitions = EmbeddedPartitions
		}
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = -1
	}
	if c.RetentionBytes <= 0 {
		c.RetentionBytes = 4 << 30
	}
	switch {
	case c.Linger == 0:
		c.Linger = 4 * time.Millisecond
	case c.Linger < 0:
		c.Linger = 0
	}
	if c.InFlight <= 0 {
		c.InFlight = 8192
	}
	if c.ClientID == "" {
		c.ClientID = "doppel"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// dialTimeout is the client's own default.
const dialTimeout = 10 * time.Second

const topicAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// connection is what every client of this log is opened with.
func (c *Config) connection() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.WithLogger(clientLogger{c.Logger}),
		kgo.DisableClientMetrics(),
		// The client's default of 5 s is how long it would believe an old leader, or that a topic
		// just made does not exist.
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryTimeout(30 * time.Second),
	}
	switch {
	case c.Dialer != nil:
		opts = append(opts, kgo.Dialer(c.Dialer))
	case c.TLS != nil:
		opts = append(opts, kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: c.TLS()}
			return d.DialContext(ctx, network, address)
		}))
	}
	if c.SASL != nil {
		opts = append(opts, kgo.SASL(c.SASL))
	}
	return opts
}

// producing is what the one producing client adds.
//
// acks=all and idempotence are the client's defaults and stay; records are retried without limit
// (also a default), because giving one up ends its partition's epoch (protocol.md, O3). Admission is
// the business of lane, so the client's own limit is out of the way.
func (c *Config) producing() []kgo.Opt {
	log, topics := c.Logger, topicNames(c.TopicPrefix)
	return []kgo.Opt{
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			if topic == topics.Telemetry || topic == topics.State {
				return largestEvent
			}
			return 1_000_012 // the client's default, which every broker takes
		}),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(c.Linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(1 << 30),
		kgo.UnknownTopicRetries(-1),
		kgo.ProducerOnDataLossDetected(func(topic string, p int32) {
			log.Error("producer session lost, records may be doubled or missing in the log", "topic", topic, "partition", p)
		}),
	}
}

// clientLogger hands the client's log on; what it calls info is of interest to nobody but its authors.
type clientLogger struct{ l *slog.Logger }

func (clientLogger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (c clientLogger) Log(level kgo.LogLevel, msg string, kv ...any) {
	lv := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		lv = slog.LevelError
	case kgo.LogLevelWarn:
		lv = slog.LevelWarn
	case kgo.LogLevelInfo, kgo.LogLevelDebug, kgo.LogLevelNone:
	}
	c.l.Log(context.Background(), lv, "kafka client", append([]any{"detail", msg}, kv...)...)
}
