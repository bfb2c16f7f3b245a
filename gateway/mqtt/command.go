package mqtt

import (
	"context"
	"time"
)

// Command is a message to a device that wants a reply.
type Command struct {
	Device, Name string // checked
	Payload      []byte // JSON; empty: none
	Correlation  []byte
	Expiry       time.Duration
}

// Command publishes a command with QoS 1. It returns when the broker has taken it.
func (c *Client) Command(ctx context.Context, cmd *Command) error {
	return c.topics.publish(ctx, c, cmd)
}

// Command is the same of the embedded broker.
func (b *Broker) Command(ctx context.Context, cmd *Command) error {
	return b.topics.publish(ctx, b, cmd)
}

func (t topics) publish(ctx context.Context, to Publisher, cmd *Command) error {
	props := &Properties{
		ContentType: "application/json", ResponseTopic: t.reply(cmd.Device, cmd.Name), CorrelationData: cmd.Correlation, Expiry: cmd.Expiry,
	}
	if len(cmd.Payload) == 0 {
		props.ContentType = ""
	}
	return to.Publish(ctx, t.command(cmd.Device, cmd.Name), 1, false, cmd.Payload, props)
}
