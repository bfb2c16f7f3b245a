package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// Broker is the door without a broker: it is one, in process. Devices connect to it with MQTT 3.1.1
// or 5; topics that are not device topics work as in any broker. Retained messages and sessions live
// in memory and end with the process: twins keep presence in their own log.
type Broker struct {
	cfg    BrokerConfig
	log    *slog.Logger
	topics topics
	stats  Stats
	sink   *sink

	rejects  *rejects
	herald   *herald
	server   *mochi.Server
	self     *mochi.Client // publishes for the node
	hook     *hook
	access   *access
	listener *listener
	wills    *peer
	gate     *gate           // goroutines of peers
	work     context.Context //nolint:containedctx // the lifetime of Run, for goroutines started by verdicts
	stop     context.CancelFunc

	// leftovers are the peers whose connection is gone while the inlet still has messages of theirs.
	leftovers sync.Map // *peer -> nil

	ones sync.Pool // of *[1]host.Message, for the inlet, which keeps no slice

	held    atomic.Int64 // weight of all unacknowledged messages
	watched atomic.Bool  // an ordinary subscriber may want telemetry
	closing atomic.Bool
	serving atomic.Bool
	started atomic.Bool
	close   sync.Once
	closed  chan struct{}
}

// NewBroker makes an embedded broker. Nothing happens before Listen and Run.
func NewBroker(cfg BrokerConfig, inlet Inlet, refuser Refuser, log *slog.Logger) (*Broker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, log: log, topics: newTopics(cfg.TopicRoot), gate: newGate(), closed: make(chan struct{})}
	b.work, b.stop = context.WithCancel(context.Background())
	b.ones.New = func() any { return new([1]host.Message) }
	b.rejects = newRejects(b, b.topics, &b.stats)
	b.herald = newHerald(b, b.topics)
	b.sink = &sink{
		inlet: inlet, refuser: refuser, reject: b.rejects,
		topics: b.topics, stats: &b.stats, observe: cfg.Observe, log: log,
	}
	b.wills = newPeer(b, nil)
	b.access = &access{users: cfg.Users, anonymous: cfg.Anonymous, topics: b.topics}
	if cfg.Users != nil {
		cfg.Users.OnChange(b.reconsider)
	}
	b.hook = &hook{broker: b}
	b.server = mochi.New(mochiOptions(cfg, log))
	b.self = b.server.NewClient(nil, mochi.LocalListener, "doppel", true)
	b.self.Properties.ProtocolVersion = 5
	if err := b.server.AddHook(b.hook, nil); err != nil {
		return nil, fmt.Errorf("embedded mqtt broker: %w", err)
	}
	return b, nil
}

func mochiOptions(cfg BrokerConfig, log *slog.Logger) *mochi.Options {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumPacketSize = cfg.MaxPacket
	c.MaximumClientWritesPending = cfg.WritesPending
	c.MaximumMessageExpiryInterval = 0 // or retained messages end after a day
	c.MaximumSessionExpiryInterval = 7 * 24 * 3600
	c.TopicAliasMaximum = 256
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	return &mochi.Options{
		Capabilities:            c,
		ClientNetReadBufferSize: 4096,
		SysTopicResendInterval:  60, // each stops the world to read memory statistics
		Logger:                  slog.New(quieter{log.Handler()}),
	}
}

// Listen opens the socket, so that Addr is known before Run. Connections wait for Run.
func (b *Broker) Listen(ctx context.Context) error {
	if b.listener != nil {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", b.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen for mqtt: %w", err)
	}
	if b.cfg.TLS != nil {
		l = tls.NewListener(l, b.cfg.TLS)
	}
	b.listener = newListener(l, b.log)
	return nil
}

// Addr is the address bound, nil before Listen.
func (b *Broker) Addr() net.Addr {
	if b.listener == nil {
		return nil
	}
	return b.listener.Addr()
}

// Run serves devices until ctx ends or Close is called. It then takes nothing new, waits at most
// DrainTimeout for the verdicts still due, and disconnects the devices.
func (b *Broker) Run(ctx context.Context) error {
	if !b.started.CompareAndSwap(false, true) {
		return errors.New("mqtt: already running")
	}
	if err := b.Listen(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer b.stop()
	wg.Go(func() { b.rejects.run(b.work) })
	if err := b.server.AddListener(b.listener); err != nil {
		return fmt.Errorf("embedded mqtt broker: %w", err)
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("embedded mqtt broker: %w", err)
	}
	b.serving.Store(true)
	wg.Go(func() { b.herald.run(b.work) })
	b.log.InfoContext(ctx, "embedded mqtt broker listens", "address", b.Addr().String())
	b.watch(ctx)
	return b.finish(ctx)
}

// watch recounts now and then whether anybody still watches devices, until the end.
func (b *Broker) watch(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.closed:
			return
		case <-tick.C:
			if b.watched.Load() {
				b.recount()
			}
		}
	}
}

// finish acknowledges what was received, then lets everybody go.
func (b *Broker) finish(ctx context.Context) error {
	b.closing.Store(true)
	b.listener.stopAccepting()
	b.drain(ctx)
	b.serving.Store(false)
	b.stop() // deliveries that still wait for the inlet, and with them their readers
	b.hook.closePeers()
	b.wills.close()
	var wg sync.WaitGroup
	for _, cl := range b.server.Clients.GetAll() {
		if cl.Net.Conn == nil || cl.Closed() {
			continue
		}
		wg.Go(func() {
			_ = cl.Net.Conn.SetWriteDeadline(time.Now().Add(time.Second))
			if cl.Properties.ProtocolVersion == 5 {
				_ = b.server.DisconnectClient(cl, packets.ErrServerShuttingDown)
			}
			cl.Stop(packets.ErrServerShuttingDown)
		})
	}
	wg.Wait()
	b.listener.closeAll()
	b.gate.shut()
	if err := b.server.Close(); err != nil {
		return fmt.Errorf("close embedded mqtt broker: %w", err)
	}
	return nil
}

// drain waits until everything received is acknowledged, at most DrainTimeout.
func (b *Broker) drain(ctx context.Context) {
	bound := time.NewTimer(b.cfg.DrainTimeout)
	defer bound.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !b.idle() {
		select {
		case <-bound.C:
			b.log.WarnContext(ctx, "messages left unacknowledged, the devices will send them again",
				"messages", b.stats.Unacked.Load())
			return
		case <-tick.C:
		}
	}
}

func (b *Broker) idle() bool {
	if b.stats.Unacked.Load() > 0 {
		return false
	}
	idle := true
	b.hook.peers.Range(func(_, v any) bool {
		p, ok := v.(*peer)
		idle = !ok || p.idle()
		return idle
	})
	return idle
}

// Close makes Run return; it does not wait for it. Without Run it closes the socket.
func (b *Broker) Close() error {
	b.close.Do(func() {
		close(b.closed)
		if !b.started.Load() && b.listener != nil {
			b.listener.stopAccepting()
		}
	})
	return nil
}

// Ready is nil while devices can connect.
func (b *Broker) Ready() error {
	if !b.serving.Load() {
		return errors.New("mqtt: embedded broker is not serving")
	}
	return nil
}

// Stats are the door's counters.
func (b *Broker) Stats() *Stats { return &b.stats }

// Sweep does nothing: every retained status came through this door already.
func (b *Broker) Sweep(context.Context) error { return nil }

// Desired implements host.Devices.
func (b *Broker) Desired(device string, payload []byte, done func(error)) {
	b.herald.Desired(device, payload, done)
}

// Rejected implements [Rejecter].
func (b *Broker) Rejected(device string, reason twin.Reason, detail string) {
	b.rejects.Rejected(device, reason, detail)
}
