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

// renewEvery is how often a subscription is asked for again that is in force. HiveMQ CE 2025.5 may leave a
// shared subscription alone for ever when a message comes for it just as the one before is acknowledged: it
// waits in the broker, and so does everything behind it, until somebody subscribes. To others it is a packet
// that changes nothing.
const renewEvery = 2 * time.Second

// subscribeAll subscribes on every new connection, also of a resumed session: Mosquitto does not
// persist shared subscriptions. It returns when ctx ends.
func (l *link) subscribeAll(ctx context.Context, subs []paho.SubscribeOptions) {
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	var current *autopaho.ConnectionManager
	for {
		select {
		case <-ctx.Done():
			return
		case current = <-l.up:
			l.subscribe(ctx, current, subs)
		case <-renew.C:
			if _, _, subscribed := l.state(); subscribed {
				l.renew(ctx, current, subs)
			}
		}
	}
}

// renew asks again. An answer that does not come is the connection's end, or soon will be.
func (l *link) renew(ctx context.Context, manager *autopaho.ConnectionManager, subs []paho.SubscribeOptions) {
	bound, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	if _, err := l.trySubscribe(bound, manager, subs); err != nil {
		l.log.DebugContext(ctx, "subscriptions not renewed", "error", err)
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
