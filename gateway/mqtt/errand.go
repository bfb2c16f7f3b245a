package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// errand is a connection made for one purpose and closed afterwards. It is not made anew when it breaks.
type errand struct {
	client *Client // whose configuration and inlet it uses
	ledger *ledger
	fail   func(error)

	conn *conn
	paho *paho.Client
}

// errand runs do, and says why the connection broke if that is why do failed.
func (c *Client) errand(ctx context.Context, do func(context.Context, *errand) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &errand{
		client: c, fail: func(err error) { cancel(err) },
		ledger: newLedger(c.cfg.Limit, c.cfg.LimitBytes, &c.stats, c.cfg.Observe),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { e.ledger.writeAcks(ctx) })
	wg.Go(func() { e.ledger.retry(ctx, c.sink) })
	if err := do(ctx, e); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// connect opens the connection with a packet that has client id, start and expiry. The caller closes it.
func (e *errand) connect(ctx context.Context, p *paho.Connect, retainedOnly bool) (*paho.Connack, error) {
	nc, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	e.conn = newConn(ctx, nc, &intake{sink: e.client.sink, ledger: e.ledger, retainedOnly: retainedOnly})
	e.paho = paho.NewClient(paho.ClientConfig{
		Conn: e.conn, Session: newSession(e.ledger), PingHandler: pinger{},
		OnClientError: e.onError, OnServerDisconnect: e.onServerDisconnect,
	})
	l := e.client.link
	p.KeepAlive = uint16(l.cfg.KeepAlive / time.Second)
	p, _ = l.connectPacket(p, e.client.urls[0]) // returns no error
	bound, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	ack, err := e.paho.Connect(bound, p)
	if err != nil {
		_ = e.conn.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return ack, nil
}

func (e *errand) onError(err error) {
	if !errors.Is(err, errSilent) {
		err = fmt.Errorf("%w: %w", errConnectionGone, err)
	}
	e.fail(err)
}

func (e *errand) onServerDisconnect(d *paho.Disconnect) {
	if d.ReasonCode == sessionTakenOver {
		e.fail(ErrTakenOver)
		return
	}
	e.fail(fmt.Errorf("broker disconnected: reason code 0x%02X", d.ReasonCode))
}

// close ends the connection, and with d the session if d says so.
func (e *errand) close(d *paho.Disconnect) error {
	err := e.paho.Disconnect(d)
	<-e.paho.Done()
	return err
}

func (e *errand) dial(ctx context.Context) (nc net.Conn, err error) {
	cfg := e.client.cfg
	for _, u := range e.client.urls {
		if nc, err = dial(ctx, u, cfg.TLS, cfg.ConnectTimeout); err == nil {
			return nc, nil
		}
	}
	return nil, err
}
