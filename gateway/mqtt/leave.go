package mqtt

import (
	"context"
	"fmt"
	"time"
)

// leaveQuiet is how long nothing must come before a session is taken for empty, with brokers whose
// answer to a PINGREQ does not prove it.
const leaveQuiet = 500 * time.Millisecond

// Leave gives up this node's share for good: it unsubscribes, takes what the broker had already
// assigned to it until all is acknowledged and nothing has come for half a second, and lets the
// session end with the connection. Run is to be stopped afterwards. After an error the session stays
// with the broker; Leave may be called again.
func (c *Client) Leave(ctx context.Context) error {
	if err := c.leave(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

func (c *Client) leave(ctx context.Context) error {
	manager := c.manager.Load()
	if manager == nil {
		return ErrNotConnected
	}
	c.link.quit()
	for {
		if err := manager.AwaitConnection(ctx); err != nil {
			return fmt.Errorf("wait for a connection: %w", err)
		}
		epoch, connected, _ := c.link.state()
		if connected {
			_, err := manager.Unsubscribe(ctx, c.unsubscribe())
			if err == nil {
				err = c.link.ledger.awaitEmpty(ctx, &c.stats)
			}
			if err != nil && ctx.Err() != nil {
				return err
			}
			if now, _, _ := c.link.state(); err == nil && now == epoch {
				c.link.leaving.Store(true)
				return nil
			}
		}
		select { // the connection broke in between: what was unacknowledged comes again
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return ErrNotConnected
		case <-time.After(reconnectFloor):
		}
	}
}

// Return takes a share again after Leave.
func (c *Client) Return() {
	c.link.subscribing.Lock()
	c.link.quitting = false
	c.link.subscribing.Unlock()
	c.link.leaving.Store(false)
	if manager := c.manager.Load(); manager != nil {
		select {
		case c.link.up <- manager:
		default: // a connection just came up, and will be subscribed
		}
	}
}

// quit sees to it that nothing is subscribed from now on.
func (l *link) quit() {
	l.subscribing.Lock() // none under way
	l.quitting = true
	l.subscribing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribed = false
}

// awaitEmpty waits until all that an unsubscribed session held is acknowledged, and then for a quiet
// time.
func (l *ledger) awaitEmpty(ctx context.Context, stats *Stats) error {
	m := l.ask()
	select {
	case <-m.cleared:
	case <-ctx.Done():
		l.forget(m)
		return ctx.Err()
	}
	for before := stats.received(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leaveQuiet):
		}
		received := stats.received()
		if received == before && l.idle() {
			return l.drain(ctx)
		}
		before = received
	}
}
