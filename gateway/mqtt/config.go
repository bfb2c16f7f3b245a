package mqtt

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"
)

// Config configures a [Client].
type Config struct {
	// URLs of the broker, tried in turn: mqtt://host:port or mqtts://host:port (tcp, ssl and tls are
	// understood as well; without a scheme: mqtt).
	URLs []string
	// ClientID is stable over restarts of this node and no other node's: the broker keeps what this
	// node did not yet acknowledge under it.
	ClientID string
	// Group is the name of the shared subscription. Default: doppel.
	Group string
	// TopicRoot is the first level of all device topics. Default: devices.
	TopicRoot string
	// ReceiveMaximum is how many messages the broker may send unacknowledged; the same on every
	// connection. Twice what arrives during a commit is enough. More means more duplicates after a
	// reconnect, and a longer queue before an owner on another node, who is to have a message in its
	// mailbox within a second. Default: 4096.
	ReceiveMaximum uint16
	// Limit is how many unacknowledged messages are held whatever the broker sends: some ignore
	// Receive Maximum when they resume a session. Default: twice ReceiveMaximum.
	Limit int
	// LimitBytes is how much those may weigh, half a KiB each besides their payload. Default: 64 MiB.
	LimitBytes int
	// SessionExpiry is how long the broker keeps the session of an absent node. It must outlast
	// every outage: what is queued in an expired session is lost. Default: 7 days.
	SessionExpiry time.Duration
	// KeepAlive default: 30 s; whole seconds.
	KeepAlive time.Duration
	// Username and Password, if not empty, go before those in the URL.
	Username, Password string
	// TLS applies to encrypted URLs. It is asked for every connection: certificates are renewed. Default:
	// the system's roots.
	TLS func() *tls.Config
	// Permit, if not nil, is asked before every attempt to connect. It blocks until this node may hold
	// its session, or ctx ends: a node that another may have taken for dead must not throw out who took
	// over its session. Default: always.
	Permit func(ctx context.Context) error
	// Adopted says whether another node has taken this session over and ended it since this was asked
	// last. Nil: never; a session that is gone is then a loss.
	Adopted func() bool
	// ConnectTimeout bounds one attempt to connect. Default: 10 s.
	ConnectTimeout time.Duration
	// DrainTimeout bounds how long Run waits at its end for verdicts of what it has received.
	// Default: 10 s.
	DrainTimeout time.Duration
	// Observe times messages. Default: nothing.
	Observe Observer
	// Replies, if not nil, gets the replies of all devices to commands, this node's or not, by a connection of
	// its own. It must not block.
	Replies func(Reply)
}

// defaultHeldBytes is what a door holds unacknowledged, about 100,000 ordinary messages.
const defaultHeldBytes = 64 << 20

func (c Config) withDefaults() Config {
	c.Group = cmp.Or(c.Group, "doppel")
	c.TopicRoot = cmp.Or(strings.Trim(c.TopicRoot, "/"), "devices")
	c.ReceiveMaximum = cmp.Or(c.ReceiveMaximum, 4096)
	c.Limit = cmp.Or(c.Limit, 2*int(c.ReceiveMaximum))
	c.LimitBytes = cmp.Or(c.LimitBytes, defaultHeldBytes)
	c.SessionExpiry = cmp.Or(c.SessionExpiry, 7*24*time.Hour)
	c.KeepAlive = cmp.Or(c.KeepAlive, 30*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 10*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 10*time.Second)
	return c
}

func (c Config) check() ([]*url.URL, error) {
	urls, err := parseURLs(c.URLs)
	if err != nil {
		return nil, err
	}
	switch {
	case c.ClientID == "":
		return nil, errors.New("mqtt client id: none given")
	case strings.ContainsAny(c.Group, "/+#"):
		return nil, fmt.Errorf("mqtt group %q: has one of / + #", c.Group)
	case strings.ContainsAny(c.TopicRoot, "+#$"):
		return nil, fmt.Errorf("mqtt topic root %q: has one of + # $", c.TopicRoot)
	case c.KeepAlive < time.Second || c.KeepAlive > math.MaxUint16*time.Second:
		return nil, fmt.Errorf("mqtt keep alive %s: not between 1 s and 65535 s", c.KeepAlive)
	case c.SessionExpiry < time.Second:
		return nil, fmt.Errorf("mqtt session expiry %s: under a second, unacknowledged messages would be lost", c.SessionExpiry)
	case c.LimitBytes < 1:
		return nil, fmt.Errorf("mqtt limit bytes %d: not positive", c.LimitBytes)
	case c.Limit < 1:
		return nil, fmt.Errorf("mqtt limit %d: not positive", c.Limit)
	}
	return urls, nil
}

// permit waits until connecting is allowed.
func (c Config) permit(ctx context.Context) error {
	if c.Permit == nil {
		return nil
	}
	if err := c.Permit(ctx); err != nil {
		return fmt.Errorf("wait for the permit to connect: %w", err)
	}
	return nil
}

// sessionExpirySeconds in whole seconds; the largest value means never [MQTT 5 section 3.1.2.11.2].
func (c Config) sessionExpirySeconds() uint32 {
	return uint32(min(int64(c.SessionExpiry/time.Second), math.MaxUint32))
}
