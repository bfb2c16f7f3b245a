// Package fleet publishes what simulated devices have to say over real MQTT 5 connections.
//
// Many devices share a connection. Everything is sent with QoS 1, kept until it is acknowledged,
// and sent again, oldest first, when a connection broke. The publisher is written by hand on plain
// sockets: it shares the machine with the node it measures and may cost only a few µs a message.
// It does not judge what the node made of it; that is package oracle's work.
//
// A connection has two goroutines: the writer, which owns its devices, and the reader, which takes
// PUBACKs. Their common state is the window of unacknowledged messages, under one lock.
package fleet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// Source is a device: it gives its samples one after another. The fleet calls it from one goroutine.
type Source interface {
	ID() string
	// Due is when the next sample should be sent, unix nanoseconds, or device.Never or
	// device.Unpaced.
	Due() int64
	// Take gives the next sample; its readings stay valid until the next Take.
	Take(now int64) device.Sample
}

// Observer is told what was sent. Its methods are called from many goroutines, before the broker
// can have seen the message.
type Observer interface {
	// Sent reports samples [first, first+count) of a device, written for the first time at a time
	// in unix nanoseconds. deviceIndex is the place of the source given to Run.
	Sent(deviceIndex int, first uint64, count int, at int64)
	// Poisoned reports a payload that must end in the dead letters.
	Poisoned(payload []byte)
}

// Faults are the disturbances put in on purpose.
type Faults struct {
	// Dup is the chance of a message to be published a second time up to 50 ms later.
	Dup float64
	// Reorder is the chance of a message to be sent up to 200 ms behind the next one of its device.
	Reorder float64
	// DropConn is the chance of a connection to be cut, per second.
	DropConn float64
	// Poison is the chance that a message is followed by a broken one.
	Poison float64
	// Offline is the chance, per message, of a device to be offline for 1 to 10 s: it keeps what it has to
	// say, and says it in order when it is back.
	Offline float64
}

// Config is what a fleet needs; the zero values of all but Broker are usable.
type Config struct {
	// Broker is mqtt://HOST:PORT or, with TLS, mqtts://HOST:PORT; user and password may stand in it.
	Broker string
	TLS    *tls.Config // for mqtts; nil: the system's roots
	// User and Password, if there is a user, go before those in the URL.
	User, Password string
	// Connections defaults to 1.
	Connections int
	// Inflight is the number of unacknowledged messages of a connection, at most; default 512. The
	// broker's Receive Maximum lowers it.
	Inflight int
	Format   Format // default Protobuf
	// Batch is the number of samples in a message, default 1.
	Batch     int
	TopicRoot string // default "devices"
	ClientID  string // connections append their number; default "doppel-sim"
	Seed      uint64 // of the faults
	Faults    Faults
	// Version of MQTT, default V5.
	Version Version
	// Interactive subscribes the devices that are Obedient to what they are told. The others, and all
	// without it, cost no subscription.
	Interactive bool
	// Settle is how long Run waits at the end for what is still unacknowledged; default 60 s.
	Settle   time.Duration
	Observer Observer // may be nil
	Log      *slog.Logger
}

// Version is a protocol level of MQTT.
type Version byte

// The versions.
const (
	V311 Version = 4
	V5   Version = 5
)

const (
	maxBatch = 1000
	// maxReorderBatch keeps what a swap makes the node hold below the 64 samples of the contract.
	maxReorderBatch = 32
	maxInflight     = 60000
)

// withDefaults checks and completes.
func (c Config) withDefaults() (Config, error) {
	if c.Connections == 0 {
		c.Connections = 1
	}
	if c.Inflight == 0 {
		c.Inflight = 512
	}
	if c.Batch == 0 {
		c.Batch = 1
	}
	if c.Format == "" {
		c.Format = Protobuf
	}
	if c.TopicRoot == "" {
		c.TopicRoot = "devices"
	}
	if c.ClientID == "" {
		c.ClientID = "doppel-sim"
	}
	if c.Settle == 0 {
		c.Settle = time.Minute
	}
	if c.Version == 0 {
		c.Version = V5
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Connections < 0:
		return c, errors.New("connections must be positive")
	case c.Version != V5 && c.Version != V311:
		return c, fmt.Errorf("version %d of MQTT: want 5 or 4 (3.1.1)", c.Version)
	case c.Version != V5 && c.Faults.Poison > 0:
		return c, errors.New("poison needs MQTT 5: some of it is in the content type")
	case c.Inflight < 0 || c.Inflight > maxInflight:
		return c, fmt.Errorf("inflight must be between 1 and %d", maxInflight)
	case c.Batch < 0 || c.Batch > maxBatch:
		return c, fmt.Errorf("batch must be between 1 and %d samples", maxBatch)
	case c.Faults.Reorder > 0 && c.Batch > maxReorderBatch:
		return c, fmt.Errorf("reorder needs batches of at most %d samples: a twin holds 64 at a gap", maxReorderBatch)
	}
	if _, err := ParseFormat(string(c.Format)); err != nil {
		return c, err
	}
	return c, nil
}

// endpoint is where and how to connect.
type endpoint struct {
	address        string
	tls            *tls.Config
	user, password string
}

func parseBroker(raw string, conf *tls.Config) (endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return endpoint{}, fmt.Errorf("broker: %w", err)
	}
	var e endpoint
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		port = "8883"
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if conf != nil {
			e.tls = conf.Clone()
		}
		if e.tls.ServerName == "" {
			e.tls.ServerName = u.Hostname()
		}
	default:
		return endpoint{}, fmt.Errorf("broker %q: want mqtt://HOST:PORT or mqtts://HOST:PORT", u.Redacted())
	}
	if u.Hostname() == "" {
		return endpoint{}, fmt.Errorf("broker %q: no host", u.Redacted())
	}
	if u.Port() != "" {
		port = u.Port()
	}
	e.address = net.JoinHostPort(u.Hostname(), port)
	e.user = u.User.Username()
	e.password, _ = u.User.Password()
	return e, nil
}
