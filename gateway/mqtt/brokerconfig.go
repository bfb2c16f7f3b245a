package mqtt

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// BrokerConfig configures a [Broker].
type BrokerConfig struct {
	// Address to listen on; port 0 asks for a free one. Default: 127.0.0.1:1883.
	Address string
	// TLS makes the listener encrypted. Default: plain.
	TLS *tls.Config
	// Users are who may come in and what each may do. Default: everybody may do everything.
	Users *auth.DeviceUsers
	// Anonymous lets in who shows no credentials either, as the device of its client id.
	Anonymous bool
	// TopicRoot is the first level of all device topics. Default: devices.
	TopicRoot string
	// MaxUnacked bounds the unacknowledged messages of one connection; beyond it nothing is read
	// from that device until some are released. Default: 256.
	MaxUnacked int
	// MaxHeldBytes bounds what the unacknowledged messages of all connections weigh, half a KiB each
	// besides their payload. Beyond it a connection may have fairShare of them. Default: 64 MiB.
	MaxHeldBytes int
	// MaxPacket is the largest packet accepted, in bytes: it lets payloads over the contract's
	// limit in, so that they become dead letters. A larger one ends the connection. Default: 1 MiB.
	MaxPacket uint32
	// WritesPending bounds the messages waiting to be written to one subscriber; beyond it messages
	// of ordinary topics are dropped, as brokers do. Default: 256.
	WritesPending int32
	// WriteTimeout is how long a device may leave acknowledgements unread. Default: 20 s.
	WriteTimeout time.Duration
	// DrainTimeout bounds how long Run waits at its end for verdicts of what it has received.
	// Default: 10 s.
	DrainTimeout time.Duration
	// Observe times messages. Default: nothing.
	Observe Observer
	// Replies, if not nil, gets the replies of devices to commands. It must not block.
	Replies func(Reply)
}

// fairShare is how many unacknowledged messages a connection may have however much others have: it
// is woken by the verdicts of its own.
const fairShare = 4

func (c BrokerConfig) withDefaults() BrokerConfig {
	c.Address = cmp.Or(c.Address, "127.0.0.1:1883")
	c.TopicRoot = cmp.Or(strings.Trim(c.TopicRoot, "/"), "devices")
	c.MaxUnacked = cmp.Or(c.MaxUnacked, 256)
	c.MaxHeldBytes = cmp.Or(c.MaxHeldBytes, defaultHeldBytes)
	c.MaxPacket = cmp.Or(c.MaxPacket, 1<<20)
	c.WritesPending = cmp.Or(c.WritesPending, 256)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 20*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 10*time.Second)
	return c
}

func (c BrokerConfig) check() error {
	switch {
	case strings.ContainsAny(c.TopicRoot, "+#$"):
		return fmt.Errorf("mqtt topic root %q: has one of + # $", c.TopicRoot)
	case c.MaxHeldBytes < 1:
		return fmt.Errorf("mqtt max held bytes %d: not positive", c.MaxHeldBytes)
	case c.MaxUnacked < 1:
		return fmt.Errorf("mqtt max unacked %d: not positive", c.MaxUnacked)
	}
	return nil
}
