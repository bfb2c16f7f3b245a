package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"

	"github.com/doppel-iot/doppel/actors/twin"
)

// ErrNotConnected is returned while there is no connection to the broker.
var ErrNotConnected = errors.New("mqtt: not connected to the broker")

// Client is the door to a real broker. Its methods may be called from any goroutine.
type Client struct {
	cfg     Config
	urls    []*url.URL
	log     *slog.Logger
	topics  topics
	stats   Stats
	sink    *sink
	link    *link
	down    *downlink // nil: nobody wants replies, and what there is to publish goes by link
	rejects *rejects
	herald  *herald

	manager atomic.Pointer[autopaho.ConnectionManager]
	started atomic.Bool
	close   sync.Once
	closed  chan struct{} // by Close
	ended   chan struct{} // by Run, at its end
}

// New makes a door to the broker of cfg. Nothing happens before Run.
func New(cfg Config, inlet Inlet, refuser Refuser, log *slog.Logger) (*Client, error) {
	cfg = cfg.withDefaults()
	urls, err := cfg.check()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, urls: urls, log: log, topics: newTopics(cfg.TopicRoot), closed: make(chan struct{}), ended: make(chan struct{})}
	c.rejects = newRejects(c, c.topics, &c.stats)
	c.herald = newHerald(c, c.topics)
	c.sink = &sink{
		inlet: inlet, refuser: refuser, reject: c.rejects,
		topics: c.topics, stats: &c.stats, observe: cfg.Observe, log: log,
	}
	c.link = &link{
		cfg: cfg, urls: urls, sink: c.sink, log: log,
		ledger: newLedger(cfg.Limit, cfg.LimitBytes, &c.stats, cfg.Observe),
		up:     make(chan *autopaho.ConnectionManager, 1),
	}
	if cfg.Replies != nil {
		c.down = newDownlink(c, log)
	}
	return c, nil
}

// Run connects, subscribes and delivers until ctx ends or Close is called, and connects again for as
// long. It then takes nothing new, waits at most DrainTimeout for the verdicts still due, and
// disconnects; the session stays with the broker, so that nothing queued there is lost.
func (c *Client) Run(ctx context.Context) error {
	if !c.started.CompareAndSwap(false, true) {
		return errors.New("mqtt: already running")
	}
	// Verdicts must still be written while draining: the work outlives ctx.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { c.link.ledger.writeAcks(work) })
	wg.Go(func() { c.link.ledger.retry(work, c.sink) })
	wg.Go(func() { c.rejects.run(work) })
	wg.Go(func() { c.herald.run(work) })
	wg.Go(func() { c.link.subscribeAll(work, c.subscriptions()) })
	if c.down != nil {
		wg.Go(func() { c.down.run(work) })
	}

	defer close(c.ended)
	connecting, enough := context.WithCancel(work)
	defer enough()
	manager, err := autopaho.NewConnection(work, c.link.clientConfig(work, connecting))
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	c.manager.Store(manager)
	select {
	case <-ctx.Done():
	case <-c.closed:
	}
	return c.finish(work, manager, enough)
}

// finish acknowledges what was received, connects no more, and disconnects.
func (c *Client) finish(ctx context.Context, manager *autopaho.ConnectionManager, enough func()) error {
	if conn := c.link.conn.Load(); conn != nil {
		conn.pause()
	}
	drain, cancel := context.WithTimeout(ctx, c.cfg.DrainTimeout)
	defer cancel()
	if err := c.link.ledger.drain(drain); err != nil {
		c.log.WarnContext(ctx, "messages left unacknowledged, the broker will deliver them again",
			"messages", c.stats.Unacked.Load())
	}
	c.manager.Store(nil)
	enough()
	bound, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if err := manager.Disconnect(bound); err != nil {
		return fmt.Errorf("disconnect from the broker: %w", err)
	}
	return nil
}

// goodbye bounds what is waited for a broker that does not take even a DISCONNECT.
const goodbye = 2 * time.Second

// Close makes Run return; it does not wait for it.
func (c *Client) Close() error {
	c.close.Do(func() { close(c.closed) })
	return nil
}

// Ready is nil while the broker delivers to us, else it says what is missing.
func (c *Client) Ready() error {
	_, connected, subscribed := c.link.state()
	switch {
	case !connected:
		return ErrNotConnected
	case !subscribed:
		return errors.New("mqtt: connected to the broker but not subscribed")
	case c.down != nil:
		return c.down.ready()
	}
	return nil
}

// Stats are the door's counters.
func (c *Client) Stats() *Stats { return &c.stats }

// Desired implements host.Devices.
func (c *Client) Desired(device string, payload []byte, done func(error)) {
	c.herald.Desired(device, payload, done)
}

// Rejected implements [Rejecter].
func (c *Client) Rejected(device string, reason twin.Reason, detail string) {
	c.rejects.Rejected(device, reason, detail)
}
