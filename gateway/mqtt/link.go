package mqtt

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// Waits between attempts to connect.
const (
	reconnectFloor   = 100 * time.Millisecond
	reconnectDouble  = 6 // at most about 10 s
	reconnectSettled = 10 * time.Second
	// After another took our session over: about 1 s, if we are permitted to try at all; the longest,
	// if nobody is there to tell us whether it was right to.
	takenOverPermitted = 3
)

// link is one maintained connection to the broker: what autopaho needs to know, and what is known of
// the connection in force.
type link struct {
	cfg    Config
	urls   []*url.URL
	sink   *sink
	ledger *ledger
	log    *slog.Logger

	conn        atomic.Pointer[conn]
	up          chan *autopaho.ConnectionManager // a connection came up and wants subscribing; holds one
	subscribing sync.Mutex                       // while one is asked for
	quitting    bool                             // none is asked for any more; under subscribing
	// leaving makes the DISCONNECT end the session instead of keeping it.
	leaving atomic.Bool

	mu         sync.Mutex
	epoch      int // connections and losses so far
	connected  bool
	subscribed bool
	since      time.Time // of connected
	hurried    int       // connections in a row that did not last
	everUp     bool
}

// clientConfig for autopaho. ctx ends with the link, connecting when it is to make no more connections.
func (l *link) clientConfig(ctx, connecting context.Context) autopaho.ClientConfig {
	c := autopaho.ClientConfig{
		ServerUrls:            l.urls,
		KeepAlive:             uint16(l.cfg.KeepAlive / time.Second),
		SessionExpiryInterval: l.cfg.sessionExpirySeconds(),
		ConnectTimeout:        l.cfg.ConnectTimeout,
		ReconnectBackoff:      l.backoff,
		// Made before each attempt and outside of its time limit, so it is the place to wait.
		ConnectPacketBuilder: func(p *paho.Connect, u *url.URL) (*paho.Connect, error) {
			if err := l.cfg.permit(connecting); err != nil {
				return nil, err
			}
			return l.connectPacket(p, u)
		},
		AttemptConnection: func(_ context.Context, _ autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
			return l.attempt(ctx, u)
		},
		OnConnectionUp:   func(cm *autopaho.ConnectionManager, ack *paho.Connack) { l.onUp(ctx, cm, ack) },
		OnConnectionDown: func() bool { l.onDown(ctx); return true },
		OnConnectError: func(err error) {
			if connecting.Err() == nil {
				l.log.WarnContext(ctx, "broker refused or unreachable", "error", err)
			}
		},
		DisconnectPacketBuilder: l.disconnectPacket,
		Errors:                  pahoLog{ctx: ctx, log: l.log, level: slog.LevelWarn},
		PahoErrors:              pahoLog{ctx: ctx, log: l.log, level: slog.LevelWarn},
	}
	c.ClientID = l.cfg.ClientID
	c.Session = newSession(l.ledger)
	c.PingHandler = pinger{}
	c.OnClientError = func(err error) { l.log.WarnContext(ctx, "connection to the broker lost", "error", err) }
	c.OnServerDisconnect = func(d *paho.Disconnect) { l.onServerDisconnect(ctx, d) }
	return c
}

func (l *link) attempt(ctx context.Context, u *url.URL) (net.Conn, error) {
	nc, err := dial(ctx, u, l.cfg.TLS, l.cfg.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	c := newConn(ctx, newPaced(nc), &intake{sink: l.sink, ledger: l.ledger})
	l.conn.Store(c)
	return c, nil
}

func (l *link) connectPacket(p *paho.Connect, u *url.URL) (*paho.Connect, error) {
	if p.Properties == nil {
		p.Properties = &paho.ConnectProperties{}
	}
	p.Properties.ReceiveMaximum = &l.cfg.ReceiveMaximum
	user, password := l.cfg.Username, l.cfg.Password
	if user == "" && u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	if user != "" {
		p.UsernameFlag, p.Username = true, user
	}
	if password != "" {
		p.PasswordFlag, p.Password = true, []byte(password)
	}
	return p, nil
}

func (l *link) disconnectPacket() *paho.Disconnect {
	d := &paho.Disconnect{}
	if l.leaving.Load() {
		var never uint32
		d.Properties = &paho.DisconnectProperties{SessionExpiryInterval: &never}
	}
	return d
}

func (l *link) onUp(ctx context.Context, cm *autopaho.ConnectionManager, ack *paho.Connack) {
	l.mu.Lock()
	again := l.everUp
	l.epoch++
	l.connected, l.subscribed, l.everUp, l.since = true, false, true, time.Now()
	l.mu.Unlock()
	l.sink.stats.Connects.Add(1)
	l.sink.stats.Connected.Store(1)
	l.log.InfoContext(ctx, "connected to the broker", "client_id", l.cfg.ClientID, "session_present", ack.SessionPresent)
	l.inspect(ctx, ack, again)
	select { // a signal not yet taken was for an earlier connection
	case <-l.up:
	default:
	}
	l.up <- cm
}

func (l *link) onDown(ctx context.Context) {
	l.mu.Lock()
	l.epoch++
	if time.Since(l.since) < reconnectSettled {
		l.hurried++
	} else {
		l.hurried = 0
	}
	l.connected, l.subscribed = false, false
	l.mu.Unlock()
	l.sink.stats.Connected.Store(0)
	l.log.InfoContext(ctx, "disconnected from the broker", "client_id", l.cfg.ClientID)
}

// inspect warns of what can be seen of a broker that will lose messages.
func (l *link) inspect(ctx context.Context, ack *paho.Connack, again bool) {
	switch {
	case !again || ack.SessionPresent:
	case l.cfg.Adopted != nil && l.cfg.Adopted():
		l.log.InfoContext(ctx, "another node has adopted our session, this one begins anew")
	default:
		l.log.ErrorContext(ctx, "the broker has lost our session and what was queued in it",
			"remedy", "Mosquitto: persistence true; any broker: a session expiry longer than its outages")
	}
	p := ack.Properties
	if p == nil {
		return
	}
	if p.ReceiveMaximum != nil && *p.ReceiveMaximum <= 20 {
		l.log.WarnContext(ctx, "the broker looks like Mosquitto with its default limits, which drop messages while a consumer is slow",
			"receive_maximum", *p.ReceiveMaximum,
			"remedy", "max_inflight_messages 0, max_queued_messages 0, max_queued_bytes 0, persistence true, set_tcp_nodelay true")
	}
	if p.SessionExpiryInterval != nil && *p.SessionExpiryInterval < l.cfg.sessionExpirySeconds() {
		l.log.WarnContext(ctx, "the broker keeps sessions for a shorter time than asked; what is queued longer is lost",
			"asked_seconds", l.cfg.sessionExpirySeconds(), "granted_seconds", *p.SessionExpiryInterval)
	}
	if p.MaximumQoS != nil && *p.MaximumQoS < 1 {
		l.log.ErrorContext(ctx, "the broker grants QoS 0 only: nothing is acknowledged and everything may be lost")
	}
	if !p.SharedSubAvailable {
		l.log.ErrorContext(ctx, "the broker has no shared subscriptions, which several nodes need")
	}
}

// sessionTakenOver: another client connected with our client id [MQTT 5 section 4.13].
const sessionTakenOver = 0x8E

func (l *link) onServerDisconnect(ctx context.Context, d *paho.Disconnect) {
	if d.ReasonCode == sessionTakenOver {
		l.mu.Lock()
		if l.cfg.Permit == nil {
			l.hurried = reconnectDouble // two live holders would throw each other out for ever
		} else {
			l.hurried = max(l.hurried, takenOverPermitted)
		}
		l.since = time.Now()
		l.mu.Unlock()
		l.log.ErrorContext(ctx, "another client has connected with our client id", "client_id", l.cfg.ClientID)
		return
	}
	l.log.WarnContext(ctx, "the broker has closed the connection", "reason_code", d.ReasonCode)
}

// backoff is the wait before an attempt: none before the very first, short after a connection that
// had lasted, doubling while none does.
func (l *link) backoff(attempt int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if attempt == 0 && !l.everUp {
		return 0
	}
	d := reconnectFloor << min(attempt+l.hurried, reconnectDouble)
	return d/2 + rand.N(d)
}

// state returns a number that changes with every connection and loss.
func (l *link) state() (epoch int, connected, subscribed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.connected, l.subscribed
}

// markSubscribed unless the connection is another by now.
func (l *link) markSubscribed(epoch int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == epoch {
		l.subscribed = true
	}
}
