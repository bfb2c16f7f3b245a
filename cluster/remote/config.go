package remote

import (
	"crypto/tls"
	"log/slog"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Config of a Remote. Address must be set.
type Config struct {
	// Address under which other nodes reach this one, HOST:PORT. It is its identity, too.
	Address string
	// TLS has the certificate of this node and, as RootCAs, the authorities of the cluster; every
	// connection is authenticated on both sides. It is asked for each of them, because certificates are
	// renewed. Nil: no encryption.
	TLS    func() *tls.Config
	Logger *slog.Logger // nil: silent
	// OnRefused is called for each message that the node at address did not deliver; it must not
	// block. Nil: they are only counted.
	OnRefused func(address string, r *doppelv1.Refusal)

	// Buffer bounds the encoded messages that wait for one peer (default 8 MiB). A thirty-second of
	// it is used while a connection is made.
	Buffer int
	// MaxMessage bounds one encoded message (default 4 MiB; never more than Buffer).
	MaxMessage int
	// DialTimeout bounds making a connection (default 2 s).
	DialTimeout time.Duration
	// StallAfter is how long a peer may leave a ping unanswered before its connection is given up
	// (default 2 s). It is pinged four times as often.
	StallAfter time.Duration
	// FlushTimeout bounds how long Stop waits for what is buffered (default 2 s).
	FlushTimeout time.Duration
}

const (
	// batchBytes is about what one ExchangeRequest carries, if that much is waiting.
	batchBytes = 256 << 10
	// connectingShare of the buffer is used while a connection is made.
	connectingShare = 32
)

func (c *Config) complete() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnRefused == nil {
		c.OnRefused = func(string, *doppelv1.Refusal) {}
	}
	if c.Buffer == 0 {
		c.Buffer = 8 << 20
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 4 << 20
	}
	c.MaxMessage = min(c.MaxMessage, c.Buffer)
	if c.DialTimeout == 0 {
		c.DialTimeout = 2 * time.Second
	}
	if c.StallAfter == 0 {
		c.StallAfter = 2 * time.Second
	}
	if c.FlushTimeout == 0 {
		c.FlushTimeout = 2 * time.Second
	}
}
