package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// readBuffer holds the largest message of the contract with all its properties: anything larger
// takes a detour.
const readBuffer = 128 << 10

// conn is a connection to a broker. It decodes inbound PUBLISH packets itself, straight from its
// read buffer, and gives paho everything else: paho's own decoding costs 3 µs and 4.6 KB a message,
// this a tenth and nothing.
//
// Reads belong to one goroutine. Writes follow paho's convention that a conn which is a Locker is
// written to under its lock, one packet at a time.
type conn struct {
	net.Conn
	sync.Mutex // writes

	// ctx ends when the connection is closed, so that no delivery outlives it.
	ctx    context.Context //nolint:containedctx // the lifetime of the connection, not of a call
	cancel context.CancelFunc
	in     *intake
	br     *bufio.Reader
	pass   int // bytes of the current packet that are paho's
	pub    publish

	heard  atomic.Int64 // unix nanoseconds of the last bytes from the broker
	busy   atomic.Bool  // the reader works or waits for the inlet, not for the broker
	paused atomic.Bool  // no packet is read any more
}

func newConn(ctx context.Context, c net.Conn, in *intake) *conn {
	ctx, cancel := context.WithCancel(ctx)
	w := &conn{Conn: c, ctx: ctx, cancel: cancel, in: in}
	w.br = bufio.NewReaderSize(hearing{w}, readBuffer)
	w.heard.Store(time.Now().UnixNano())
	in.w = w
	return w
}

// hearing reads from the network and notes when something came.
type hearing struct{ c *conn }

func (h hearing) Read(p []byte) (int, error) {
	h.c.busy.Store(false)
	n, err := h.c.Conn.Read(p)
	h.c.busy.Store(true)
	if n > 0 {
		h.c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Close implements [net.Conn]. It may be called more than once and from any goroutine.
func (c *conn) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// pause stops reading at the next packet; only Close ends it. Acknowledgements still go out.
func (c *conn) pause() { c.paused.Store(true) }

// Read implements [net.Conn] for paho. It returns only bytes of packets that are paho's.
func (c *conn) Read(p []byte) (int, error) {
	for c.pass == 0 {
		if err := c.next(); err != nil {
			c.refuseAlias(err)
			return 0, err
		}
	}
	if len(p) > c.pass {
		p = p[:c.pass]
	}
	n, err := c.br.Read(p)
	c.pass -= n
	return n, err
}

// next consumes one PUBLISH of ours, or sets pass to the length of a packet that is paho's.
func (c *conn) next() error {
	if c.paused.Load() {
		<-c.ctx.Done()
		return net.ErrClosed
	}
	first, remaining, header, err := c.fixedHeader()
	if err != nil {
		return err
	}
	total := header + remaining
	if first&typeMask != typePublish {
		c.pass = total
		if err := c.in.flush(c.ctx); err != nil {
			return err
		}
		if first&typeMask == typePingresp {
			c.in.ledger.pong(c.in.w)
		}
		return nil
	}
	if total > c.br.Size() {
		return c.huge(first, remaining, header)
	}
	b, err := c.peek(total)
	if err != nil {
		return err
	}
	if err := c.pub.decode(first, b[header:]); err != nil {
		return err
	}
	mine, err := c.in.take(c.ctx, &c.pub, len(c.pub.payload))
	if err != nil {
		return err
	}
	if !mine {
		c.pass = total
		return nil
	}
	_, err = c.br.Discard(total)
	return err
}

// fixedHeader looks at the first byte, the remaining length, and the bytes these two take.
func (c *conn) fixedHeader() (first byte, remaining, size int, err error) {
	for size = 2; size <= 5; size++ {
		b, err := c.peek(size)
		if err != nil {
			return 0, 0, 0, err
		}
		if b[size-1] < 0x80 {
			remaining, _, _ = cutVarint(b[1:])
			return b[0], remaining, size, nil
		}
	}
	return 0, 0, 0, errMalformed
}

// peek returns the next n bytes. Before it waits for the network it delivers what is batched.
func (c *conn) peek(n int) ([]byte, error) {
	if c.br.Buffered() < n {
		if err := c.in.flush(c.ctx); err != nil {
			return nil, err
		}
	}
	return c.br.Peek(n)
}

// huge reads a PUBLISH larger than the buffer. It keeps as much as a dead letter can hold, and hands
// it to the intake whatever its topic: nothing else we subscribe to is that large.
func (c *conn) huge(first byte, remaining, header int) error {
	if err := c.in.flush(c.ctx); err != nil {
		return err
	}
	if _, err := c.br.Discard(header); err != nil {
		return err
	}
	kept := make([]byte, min(remaining, maxKept+readBuffer))
	if _, err := io.ReadFull(c.br, kept); err != nil {
		return err
	}
	for left := remaining - len(kept); left > 0; {
		n, err := c.br.Discard(min(left, readBuffer))
		if err != nil {
			return err
		}
		left -= n
	}
	if err := c.pub.decode(first, kept); err != nil {
		return err
	}
	size := len(c.pub.payload) + remaining - len(kept)
	c.pub.payload = c.pub.payload[:min(len(c.pub.payload), maxKept)]
	mine, err := c.in.take(c.ctx, &c.pub, size)
	if err != nil || mine {
		return err
	}
	c.in.stats.Ignored.Add(1)
	return c.in.ledger.pushDone(c, c.pub.id, c.in.stamp())
}

// refuseAlias tells a broker that uses a topic alias that it may not [MQTT-3.1.2-27].
func (c *conn) refuseAlias(err error) {
	if errors.Is(err, errTopicAlias) {
		_ = writeLocked(c, []byte{0xE0, 2, 0x94, 0}) // DISCONNECT, topic alias invalid
	}
}

// dial connects to a broker: mqtt and tcp plainly, mqtts, ssl and tls encrypted.
func dial(ctx context.Context, u *url.URL, secure func() *tls.Config, timeout time.Duration) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	switch strings.ToLower(u.Scheme) {
	case "mqtt", "tcp":
		return d.DialContext(ctx, "tcp", hostPort(u, "1883"))
	case "mqtts", "ssl", "tls":
		t := &tls.Dialer{NetDialer: d}
		if secure != nil {
			t.Config = secure()
		}
		return t.DialContext(ctx, "tcp", hostPort(u, "8883"))
	}
	return nil, fmt.Errorf("url %s: scheme is none of mqtt, tcp, mqtts, ssl, tls", u.Redacted())
}

func hostPort(u *url.URL, port string) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// CheckURLs says what is wrong with the URLs of brokers.
func CheckURLs(texts []string) error {
	_, err := parseURLs(texts)
	return err
}

// parseURLs reads broker URLs; a bare host:port is one too.
func parseURLs(texts []string) ([]*url.URL, error) {
	urls := make([]*url.URL, 0, len(texts))
	for _, text := range texts {
		if !strings.Contains(text, "://") {
			text = "mqtt://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("broker url: %w", err)
		}
		if u.Hostname() == "" {
			return nil, fmt.Errorf("broker url %s: no host", u.Redacted())
		}
		switch strings.ToLower(u.Scheme) {
		case "mqtt", "tcp", "mqtts", "ssl", "tls":
		default:
			return nil, fmt.Errorf("broker url %s: scheme is none of mqtt, tcp, mqtts, ssl, tls", u.Redacted())
		}
		urls = append(urls, u)
	}
	if len(urls) == 0 {
		return nil, errors.New("broker url: none given")
	}
	return urls, nil
}
