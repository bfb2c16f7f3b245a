package mqtt

import (
	"context"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// sweepQuiet is how long no retained message must come before a sweep is over.
const sweepQuiet = time.Second

// Sweep delivers the retained status of every device: shared subscriptions do not get them. It makes
// a connection of its own, subscribes plainly, waits until nothing retained comes any more and all is
// released, and goes. Status published meanwhile is left to the shared subscription.
func (c *Client) Sweep(ctx context.Context) error {
	if err := c.errand(ctx, sweep); err != nil {
		return fmt.Errorf("sweep of retained status: %w", err)
	}
	return nil
}

func sweep(ctx context.Context, e *errand) error {
	connect := &paho.Connect{ClientID: e.client.cfg.ClientID + "-sweep", CleanStart: true}
	if _, err := e.connect(ctx, connect, true); err != nil {
		return err
	}
	defer func() { _ = e.close(&paho.Disconnect{}) }() // ends the session; an error means that it has ended
	filter := e.client.topics.statusFilter()
	if _, err := e.paho.Subscribe(ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qosAsked}},
	}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := e.awaitQuiet(ctx); err != nil {
		return err
	}
	if _, err := e.paho.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{filter}}); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return e.ledger.drain(ctx)
}

// awaitQuiet waits until nothing is under way and nothing retained has come for sweepQuiet.
func (e *errand) awaitQuiet(ctx context.Context) error {
	e.conn.in.retained.Store(time.Now().UnixNano())
	tick := time.NewTicker(sweepQuiet / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		last := time.Unix(0, e.conn.in.retained.Load())
		if e.ledger.idle() && !e.conn.busy.Load() && time.Since(last) > sweepQuiet {
			return nil
		}
	}
}
