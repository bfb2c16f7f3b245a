package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/cluster/query"
	"github.com/doppel-iot/doppel/cluster/router"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/mqtt"
	"github.com/doppel-iot/doppel/gateway/web"
)

// openDoors starts what people use: gRPC, JSON, the page, metrics and health.
func (a *assembly) openDoors(hub *api.Hub, grpcListener, httpListener net.Listener) error {
	reader := query.New(a.queryConfig())
	a.fleet = &fleet{
		host: a.host, id: a.id, address: a.advertised(), started: time.Now(), letters: a.storage.Letters(), ingest: a.storage.Ingest().Ends,
	}
	all := a.newFleet(reader)
	collector := &accounts{host: a.host, router: a.router, from: a.source}
	if a.rows != nil {
		a.fleet.lag, a.fleet.rows = a.rows.Lag, a.rows
		collector.lost = a.rows.Stats().Lost.Load
		collector.lag = func() (sum int64) {
			for _, n := range a.rows.Lag() {
				sum += n
			}
			return sum
		}
	}
	a.metrics.registry.MustRegister(collector)
	if a.notifier != nil {
		a.metrics.registry.MustRegister(notifications{a.notifier})
	}
	if a.cluster != nil {
		a.metrics.registry.MustRegister(clusterAccounts{a})
	}
	past, err := a.newHistory()
	if err != nil {
		return err
	}
	a.api, err = api.New(api.Config{
		Twins: reader, Past: reader, History: past, Alerts: reader, Fleet: all, Drains: all, Rules: query.NewRules(reader, a.rules),
		DeadLetters: a.storage.Letters(), Decoder: a.newDecoder, Resets: reader, Writes: reader, Hub: hub, Guard: a.locks.guard, Journal: a.locks.journal, Log: a.log.With("component", "api"),
		Commands:  reader,
		AlertDesk: reader,
	})
	if err != nil {
		return err
	}
	grpcServer := a.api.Server(a.locks.grpc())
	webLog := a.log.With("component", "web")
	handler, err := web.New(web.Config{
		GRPC: grpcServer, Watches: a.api, Metrics: a.metrics.registry, Ready: a.ready, Pprof: a.cfg.Pprof,
		Guard: a.locks.guard, Certificates: a.cfg.clientAuth() == "require", Log: webLog,
	})
	if err != nil {
		return err
	}
	httpServer := web.NewServer(handler, webLog)
	httpServer.TLSConfig = a.locks.http()
	a.life.start("rates", func(ctx context.Context) error { a.fleet.run(ctx); return nil })
	a.life.start("grpc", func(ctx context.Context) error { return serveGRPC(ctx, grpcServer, grpcListener, hub) })
	a.life.start("http", func(ctx context.Context) error { return serveHTTP(ctx, httpServer, httpListener) })
	return nil
}

// source names the door in doppel_messages_received_total.
func (a *assembly) source() string {
	if a.cfg.embeddedBroker() {
		return "embedded"
	}
	return "mqtt"
}

// drainWithin bounds how long the MQTT door waits for verdicts when the node stops. With it and what
// the other parts take at most, a node whose log and QuestDB are both away still ends within 30 s.
const drainWithin = 5 * time.Second

// openMQTT makes the MQTT door; build starts it.
func (a *assembly) openMQTT(ctx context.Context) error {
	cfg := router.Config{Owners: a.host, Partitions: a.storage.Partitions(), Ingest: a.storage.Ingest()}
	if c := a.cluster; c != nil {
		cfg.Route, cfg.Wire = c.route, c.remote
	}
	inlet := router.New(cfg)
	a.router = inlet
	log := a.log.With("component", "mqtt")
	if a.cfg.embeddedBroker() {
		broker, err := mqtt.NewBroker(mqtt.BrokerConfig{
			Address: a.cfg.MQTTAddr, TLS: a.locks.mqtt(), Users: a.locks.users, Anonymous: a.cfg.MQTTAnonymous,
			DrainTimeout: drainWithin, TopicRoot: a.cfg.MQTTRoot, Observe: a.observer(), Replies: a.replied,
		}, inlet, a.host, log)
		if err != nil {
			return fmt.Errorf("mqtt-addr: %w", err)
		}
		if err := broker.Listen(ctx); err != nil {
			return fmt.Errorf("mqtt-addr: %w", err)
		}
		a.addrs.MQTT, a.door = broker.Addr().String(), broker
		a.metrics.registry.MustRegister(refusals(broker.Stats())...)
	} else {
		client, err := mqtt.New(a.mqttConfig(), inlet, a.host, log)
		if err != nil {
			return fmt.Errorf("mqtt: %w", err)
		}
		a.door = client
	}
	return nil
}

// restWithin bounds how long a node that starts leaves its MQTT session to the broker while partitions have no
// owner yet or are about to move. What it took meanwhile would go by doppel.ingest, which costs several times as much.
const restWithin = 3 * time.Second

// takeInput runs the MQTT door.
func (a *assembly) takeInput(ctx context.Context) error {
	if c := a.cluster; c != nil && !a.cfg.embeddedBroker() {
		bound, cancel := context.WithTimeout(ctx, restWithin)
		c.awaitRest(bound)
		cancel()
	}
	return a.door.Run(ctx)
}

// mqttConfig is that of this node's session with real brokers.
func (a *assembly) mqttConfig() mqtt.Config {
	cfg := mqtt.Config{
		URLs: a.cfg.MQTT, ClientID: a.mqttClientID(), DrainTimeout: drainWithin, Group: a.cfg.Group, TopicRoot: a.cfg.MQTTRoot, Observe: a.observer(), Replies: a.replied,
		Username: a.cfg.MQTTUser, Password: a.locks.mqttPassword, TLS: a.locks.certs.Client,
	}
	if a.cluster != nil {
		cfg.Permit, cfg.Adopted = a.cluster.registry.Permit, a.cluster.registry.Adopted
	}
	return cfg
}

func (a *assembly) observer() mqtt.Observer {
	return mqtt.Observer{
		Received: func(_ int, took time.Duration) { a.metrics.observe(stageReceive, took) },
		Acked:    func(age time.Duration) { a.metrics.observe(stagePuback, age) },
	}
}

// logPatience is how long the log may take to answer a probe before the node is not ready.
const logPatience = 2 * time.Second

// ready is nil when the node serves all it should.
func (a *assembly) ready() error {
	if a.embedded != nil {
		if err := a.embedded.Err(); err != nil {
			return fmt.Errorf("the log takes no records: %w", err)
		}
	}
	serving, total := a.host.Restored()
	if c := a.cluster; c != nil {
		if err := c.seated(); err != nil {
			return err
		}
	} else {
		total = int(a.storage.Partitions()) // also those it has not begun with
	}
	if serving < total {
		return fmt.Errorf("%d of %d partitions serve", serving, total)
	}
	if err := a.door.Ready(); err != nil {
		return err
	}
	if err := a.hub.Ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), logPatience)
	defer cancel()
	if err := a.storage.Ping(ctx); err != nil {
		return fmt.Errorf("the log does not answer: %w", err)
	}
	return nil
}

// serveGRPC ends watches first, or they would keep the server from stopping.
func serveGRPC(ctx context.Context, s *grpc.Server, l net.Listener, hub *api.Hub) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	hub.Close()
	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(3 * time.Second):
		s.Stop()
	}
	return nil
}

func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() {
		if s.TLSConfig != nil {
			done <- s.ServeTLS(l, "", "")
			return
		}
		done <- s.Serve(l)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := s.Shutdown(bound); err != nil {
		return s.Close()
	}
	return nil
}
