package mqtt

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// sweepQuiet is how long no retained message must come before a sweep is over.
const sweepQuiet = time.Second

// Sweep delivers the retained status of every device: shared subscriptions do not get them. It makes
// a connection of its own, subscribes plainly, waits until nothing retained comes any more and all is
// released, and goes. Status published meanwhile is left to the shared subscription.
func (c *Client) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &sweep{
		client: c, ledger: newLedger(c.cfg.Limit, c.cfg.LimitBytes, &c.stats, c.cfg.Observe),
		fail: func(err error) { cancel(err) },
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { s.ledger.writeAcks(ctx) })
	wg.Go(func() { s.ledger.retry(ctx, c.sink) })
	if err := s.run(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("sweep of retained status: %w", err)
	}
	return nil
}

type sweep struct {
	client *Client
	ledger *ledger
	conn   *conn
	fail   func(error)
}

func (s *sweep) run(ctx context.Context) error {
	nc, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.conn = newConn(ctx, nc, &intake{sink: s.client.sink, ledger: s.ledger, retainedOnly: true})
	client := paho.NewClient(paho.ClientConfig{
		Conn: s.conn, Session: newSession(s.ledger), PingHandler: pinger{},
		OnClientError:      s.fail,
		OnServerDisconnect: func(d *paho.Disconnect) { s.fail(fmt.Errorf("broker disconnected: reason code 0x%02X", d.ReasonCode)) },
	})
	if _, err := client.Connect(ctx, s.connect()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		_ = client.Disconnect(&paho.Disconnect{}) // ends the session; an error means that it has ended
		<-client.Done()
	}()
	filter := s.client.topics.statusFilter()
	if _, err := client.Subscribe(ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qosAsked}},
	}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := s.awaitQuiet(ctx); err != nil {
		return err
	}
	if _, err := client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{filter}}); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return s.ledger.drain(ctx)
}

func (s *sweep) dial(ctx context.Context) (nc net.Conn, err error) {
	cfg := s.client.cfg
	for _, u := range s.client.urls {
		if nc, err = dial(ctx, u, cfg.TLS, cfg.ConnectTimeout); err == nil {
			return nc, nil
		}
	}
	return nil, err
}

func (s *sweep) connect() *paho.Connect {
	l := s.client.link
	p := &paho.Connect{
		ClientID: s.client.cfg.ClientID + "-sweep", CleanStart: true,
		KeepAlive: uint16(l.cfg.KeepAlive / time.Second),
	}
	p, _ = l.connectPacket(p, s.client.urls[0]) // returns no error
	return p
}

// awaitQuiet waits until nothing is under way and nothing retained has come for sweepQuiet.
func (s *sweep) awaitQuiet(ctx context.Context) error {
	s.conn.in.retained.Store(time.Now().UnixNano())
	tick := time.NewTicker(sweepQuiet / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		last := time.Unix(0, s.conn.in.retained.Load())
		if s.ledger.idle() && !s.conn.busy.Load() && time.Since(last) > sweepQuiet {
			return nil
		}
	}
}
