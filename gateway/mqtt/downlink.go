package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// downlink is a node's second connection to a broker: messages to devices go by it and replies to commands
// come by it. The first one belongs to what devices send, which may fill it to the brim; and its session
// outlives the node, so that a subscription of every node to every reply would pile them up there.
// This session ends with its connection.
type downlink struct {
	client  *Client
	log     *slog.Logger
	manager atomic.Pointer[autopaho.ConnectionManager] // nil: not subscribed
	pending chan *autopaho.ConnectionManager           // a connection came up and wants subscribing; holds one
}

func newDownlink(c *Client, log *slog.Logger) *downlink {
	return &downlink{client: c, log: log, pending: make(chan *autopaho.ConnectionManager, 1)}
}

// run keeps the connection until ctx ends.
func (d *downlink) run(ctx context.Context) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	manager, err := autopaho.NewConnection(work, d.config(work))
	if err != nil {
		d.log.ErrorContext(ctx, "no connection for commands", "error", err)
		return
	}
	for {
		select {
		case <-ctx.Done():
			d.manager.Store(nil)
			bound, cancel := context.WithTimeout(work, goodbye)
			defer cancel()
			_ = manager.Disconnect(bound) // the session ends either way
			stop()
			<-manager.Done()
			return
		case up := <-d.pending:
			d.subscribe(ctx, up)
		}
	}
}

func (d *downlink) config(ctx context.Context) autopaho.ClientConfig {
	cfg := d.client.cfg
	c := autopaho.ClientConfig{
		ServerUrls: d.client.urls, KeepAlive: uint16(min(cfg.KeepAlive/time.Second, 30)),
		CleanStartOnInitialConnection: true, ConnectTimeout: cfg.ConnectTimeout, ReconnectBackoff: d.client.link.backoff,
		ConnectPacketBuilder: func(p *paho.Connect, u *url.URL) (*paho.Connect, error) { return d.client.link.connectPacket(p, u) },
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
			nc, err := dial(ctx, u, cfg.TLS, cfg.ConnectTimeout)
			if err != nil {
				return nil, err
			}
			return packets.NewThreadSafeConn(nc), nil
		},
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			select { // a signal not yet taken was for an earlier connection
			case <-d.pending:
			default:
			}
			d.pending <- cm
		},
		OnConnectionDown: func() bool { d.manager.Store(nil); return true },
		Errors:           pahoLog{ctx: ctx, log: d.log, level: slog.LevelDebug},
		PahoErrors:       pahoLog{ctx: ctx, log: d.log, level: slog.LevelDebug},
	}
	c.ClientID = cfg.ClientID + "-commands"
	c.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
		if r, ok := d.client.topics.replyOfPaho(p.Packet); ok {
			cfg.Replies(r)
		}
		return true, nil
	}}
	return c
}

// subscribe makes a connection ready. Before that nothing is sent: a reply would not be heard.
func (d *downlink) subscribe(ctx context.Context, manager *autopaho.ConnectionManager) {
	bound, cancel := context.WithTimeout(ctx, d.client.cfg.ConnectTimeout)
	defer cancel()
	// RetainHandling 2: what a broker has retained answers nothing.
	ack, err := manager.Subscribe(bound, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: d.client.topics.replyFilter(), QoS: qosAsked, RetainHandling: 2}},
	})
	if err == nil {
		err = granted(ack.Reasons)
	}
	if err == nil {
		d.manager.Store(manager)
		d.log.InfoContext(ctx, "connected for commands", "client_id", d.client.cfg.ClientID+"-commands")
		return
	}
	if ctx.Err() != nil || errors.Is(err, autopaho.ConnectionDownError) {
		return // the next connection is subscribed anew
	}
	d.log.ErrorContext(ctx, "subscription to replies refused", "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(reconnectFloor):
		select {
		case d.pending <- manager:
		default: // another connection came up
		}
	}
}

// publish sends p when there is a connection, and says ErrNotConnected when it certainly was not sent.
func (d *downlink) publish(ctx context.Context, p *paho.Publish) error {
	manager := d.manager.Load()
	if manager == nil {
		return ErrNotConnected
	}
	_, err := manager.Publish(ctx, p)
	if errors.Is(err, autopaho.ConnectionDownError) {
		return ErrNotConnected
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", p.Topic, err)
	}
	return nil
}

// ready is nil while commands can be sent and their replies heard.
func (d *downlink) ready() error {
	if d.manager.Load() == nil {
		return fmt.Errorf("commands: %w", ErrNotConnected)
	}
	return nil
}
