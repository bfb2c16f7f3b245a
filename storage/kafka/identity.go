package kafka

import (
	"context"
	"fmt"
)

// Identity names this log: it changes when the changelog's topic is made anew, even at the same
// addresses and under the same name. Places stored under another identity mean nothing.
func (c *Client) Identity(ctx context.Context) (string, error) {
	details, err := c.adm.ListTopics(ctx, c.topics.Telemetry)
	if err != nil {
		return "", fmt.Errorf("identity of %s: %w", c.topics.Telemetry, err)
	}
	t := details[c.topics.Telemetry]
	if t.Err != nil {
		return "", fmt.Errorf("identity of %s: %w", c.topics.Telemetry, t.Err)
	}
	return fmt.Sprintf("%s %x", c.topics.Telemetry, t.ID[:]), nil
}
