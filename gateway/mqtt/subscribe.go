package mqtt

import (
	"context"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// qosAsked is the QoS of all our subscriptions: 2 would cost a round trip more and give nothing, since
// the twins remove duplicates.
const qosAsked = 1

// subscriptions are the shared ones of a node. Retained messages are not wanted: a broker that sends
// them to shared subscribers nevertheless (Mosquitto before 2.0.13) would do so on every reconnect.
func (c *Client) subscriptions() []paho.SubscribeOptions {
	filters := c.topics.filters()
	subs := make([]paho.SubscribeOptions, len(filters))
	for i, filter := range filters {
		subs[i] = paho.SubscribeOptions{Topic: "$share/" + c.cfg.Group + "/" + filter, QoS: qosAsked, RetainHandling: 2}
	}
	return subs
}

// subscribeAll subscribes on every new connection, also of a resumed session: Mosquitto does not
// persist shared subscriptions. It returns when ctx ends.
func (l *link) subscribeAll(ctx context.Context, subs []paho.SubscribeOptions) {
	for {
		select {
		case <-ctx.Done():
			return
		case manager := <-l.up:
			l.subscribe(ctx, manager, subs)
		}
	}
}

// subscribe tries until it is granted or the connection is another.
func (l *link) subscribe(ctx context.Context, manager *autopaho.ConnectionManager, subs []paho.SubscribeOptions) {
	epoch, _, _ := l.state()
	for attempt := 0; ; attempt++ {
		asked, err := l.trySubscribe(ctx, manager, subs)
		if !asked {
			return
		}
		if err == nil {
			l.markSubscribed(epoch)
			l.log.InfoContext(ctx, "subscribed", "filters", len(subs), "first", subs[0].Topic)
			return
		}
		if now, connected, _ := l.state(); ctx.Err() != nil || now != epoch || !connected {
			return
		}
		l.log.ErrorContext(ctx, "subscription refused", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(time.Second<<min(attempt, 4), 10*time.Second)):
		}
	}
}

// trySubscribe asks once, unless the node is leaving.
func (l *link) trySubscribe(ctx context.Context, manager *autopaho.ConnectionManager, subs []paho.SubscribeOptions) (asked bool, err error) {
	l.subscribing.Lock()
	defer l.subscribing.Unlock()
	if l.quitting {
		return false, nil
	}
	ack, err := manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: subs})
	if err == nil {
		err = granted(ack.Reasons)
	}
	return true, err
}

func granted(reasons []byte) error {
	for i, r := range reasons {
		if r != qosAsked {
			return fmt.Errorf("subscription %d: reason code 0x%02X instead of QoS 1", i, r)
		}
	}
	return nil
}

// unsubscribe is the packet that ends them.
func (c *Client) unsubscribe() *paho.Unsubscribe {
	u := &paho.Unsubscribe{}
	for _, s := range c.subscriptions() {
		u.Topics = append(u.Topics, s.Topic)
	}
	return u
}
