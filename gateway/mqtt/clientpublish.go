package mqtt

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// Publish implements [Publisher].
func (c *Client) Publish(ctx context.Context, topic string, qos byte, retain bool, payload []byte, props *Properties) error {
	p := &paho.Publish{Topic: topic, QoS: qos, Retain: retain, Payload: payload, Properties: props.paho()}
	if c.down != nil {
		return c.down.publish(ctx, p)
	}
	manager := c.manager.Load()
	if manager == nil {
		return ErrNotConnected
	}
	if _, err := manager.Publish(ctx, p); err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}

func (p *Properties) paho() *paho.PublishProperties {
	if p == nil {
		return nil
	}
	out := &paho.PublishProperties{
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
	}
	if p.Expiry > 0 {
		seconds := p.expirySeconds()
		out.MessageExpiry = &seconds
	}
	for _, u := range p.User {
		out.User.Add(u.Key, u.Value)
	}
	return out
}

func (p *Properties) expirySeconds() uint32 {
	return uint32(min((p.Expiry+time.Second-1)/time.Second, math.MaxUint32))
}
