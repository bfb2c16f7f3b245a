package mqtt

import (
	"context"
	"fmt"
)

// Clear returns nil once everything that the broker had for this node when Clear was called is
// released: what it had sent, what it still held for want of Receive Maximum, and, after a break of
// the connection, what it delivered again. It waits until then or until ctx ends; while there is no
// connection, that is for one. It costs a PINGREQ, shared by all calls that wait, and does not need a
// moment without messages. Against a backlog it waits until that is through.
//
// It relies on a broker that answers PINGREQ behind what it has already assigned to the session, as
// Mosquitto does.
func (c *Client) Clear(ctx context.Context) error {
	m := c.link.ledger.ask()
	select {
	case <-m.cleared:
		return nil
	case <-ctx.Done():
		c.link.ledger.forget(m)
		return fmt.Errorf("clear: %w", ctx.Err())
	case <-c.ended:
		return fmt.Errorf("clear: %w", ErrNotConnected)
	}
}
