package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/group"
	"github.com/doppel-iot/doppel/cluster/handover"
	"github.com/doppel-iot/doppel/cluster/peers"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/cluster/query"
	"github.com/doppel-iot/doppel/cluster/registry"
	"github.com/doppel-iot/doppel/cluster/remote"
	"github.com/doppel-iot/doppel/cluster/router"
	"github.com/doppel-iot/doppel/gateway/command"
	"github.com/doppel-iot/doppel/gateway/mqtt"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// sessionFresh is how old the group's last answer may be for this node to act as its member: a second less
// than after which the group takes it for dead.
const sessionFresh = 5 * time.Second

// cluster is what makes a node one of several: nodes that share a log. A node with an embedded log has none.
type cluster struct {
	a        *assembly
	listener net.Listener
	remote   *remote.Remote
	group    *group.Group
	peers    *peers.Peers
	mover    *handover.Mover
	registry *registry.Registry

	draining atomic.Bool
	unshared atomic.Bool // the broker assigns nothing to this node

	routing sync.Mutex
	routes  atomic.Pointer[[]router.Route] // by partition
}

// listenNode binds the address at which other nodes reach this one.
func (a *assembly) listenNode(ctx context.Context) error {
	if a.cfg.embeddedLog() {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.cfg.NodeAddr)
	if err != nil {
		return fmt.Errorf("node-addr: %w", err)
	}
	a.life.closer("node listener", func() error { return ignoreClosed(l.Close()) })
	a.addrs.Node = l.Addr().String()
	a.cluster = &cluster{a: a, listener: l}
	return nil
}

// advertised is the address that other nodes are told.
func (a *assembly) advertised() string {
	if a.cfg.Advertise != "" || a.cluster == nil {
		return a.cfg.Advertise
	}
	return a.addrs.Node
}

// openCluster makes the parts; they start in startCluster, when there is a host to move partitions to.
func (a *assembly) openCluster(context.Context) (err error) {
	c := a.cluster
	if c == nil {
		return nil
	}
	c.remote = remote.New(remote.Config{Address: a.advertised(), TLS: a.locks.node(), Logger: a.log.With("component", "remote")})
	c.group, err = group.New(group.Config{
		Connection: a.storage.Options(), Group: a.cfg.Group, Topic: a.storage.Topics().Ingest, Partitions: a.storage.Partitions(),
		Node: a.id, Incarnation: a.incarnation, Capacity: a.cfg.Capacity, Former: a.formerSeat(), Seated: a.keepSeat,
		OnTable: func(t *placement.Table) { c.mover.Table(t); c.reroute() },
		Logger:  a.log.With("component", "group"),
	})
	if err != nil {
		return err
	}
	c.peers, err = peers.New(peers.Config{
		Node: a.id, Incarnation: a.incarnation, Wire: c.remote,
		Clear:   a.clear,
		Changed: func() { c.reroute(); c.mover.Changed() },
		Logger:  a.log.With("component", "peers"),
	})
	if err != nil {
		return err
	}
	c.mover, err = handover.New(handover.Config{
		Node: a.id, Partitions: a.storage.Partitions(), Host: movable{a}, Peers: c.peers, Wire: c.remote, Fresh: c.fresh,
		Logger: a.log.With("component", "handover"),
	})
	if err != nil {
		return err
	}
	c.registry, err = registry.New(registry.Config{
		Record: a.record(), Log: a.storage, Table: c.group.Table, Fresh: c.fresh, Adopt: c.adopt,
		Node: c.node, Known: c.peers.Known, Met: c.peers.Met, Placed: c.placed, Heard: c.peers.Heard,
		Logger: a.log.With("component", "registry"),
	})
	c.reroute()
	return err
}

// seatFile is where a node keeps what the group knows it by. The data directory is locked, so whoever is
// named there when a node starts is an earlier run of it, and over.
const seatFile = "group-member"

func (a *assembly) formerSeat() string {
	b, err := os.ReadFile(filepath.Join(a.cfg.DataDir, seatFile))
	if err != nil {
		return "" // none, or not to be known: its session runs out
	}
	return strings.TrimSpace(string(b))
}

func (a *assembly) keepSeat(member string) {
	if err := os.WriteFile(filepath.Join(a.cfg.DataDir, seatFile), []byte(member+"\n"), 0o600); err != nil {
		a.log.Warn("group member not kept, after a crash the others wait for its session to run out", "err", err)
	}
}

// startCluster begins to take part: from here on partitions come and go.
func (a *assembly) startCluster() {
	c := a.cluster
	if c == nil {
		a.standAlone()
		return
	}
	server := grpc.NewServer(c.remote.ServerOptions()...)
	c.remote.Register(server)
	answers := query.NewServer(a.host, a.fleet, a.hub)
	answers.ServeRules(a.rules)
	answers.ServeCommands(command.Local{Book: a.commands})
	answers.Register(server)
	a.life.start("host", a.awaitFailure)
	a.life.start("node door", func(ctx context.Context) error { return c.serve(ctx, server) })
	a.life.closer("router", func() error { a.router.Close(); return nil }) // with the last verdicts
	a.life.start("registry", c.registry.Run)
	a.life.start("peers", c.peers.Run)
	a.life.start("group", c.group.Run)
	a.life.start("partitions", c.mover.Run)
	a.life.start("committed", c.commit)
	a.life.start("share", c.share)
}

// awaitFailure returns when a partition refuses to serve: the log contradicts itself, and nobody else may try.
func (a *assembly) awaitFailure(ctx context.Context) error {
	select {
	case err := <-a.host.Failed():
		return err
	case <-ctx.Done():
		return nil
	}
}

// clearAlone lets partitions ask what may still wait at this node's own door.
func (a *assembly) clearAlone(cfg *host.Config) error {
	p, err := peers.New(peers.Config{Node: a.id, Incarnation: a.incarnation, Clear: a.clear, Logger: a.log.With("component", "peers")})
	if err != nil {
		return err
	}
	p.Known()
	cfg.Gateways = p
	a.alone = p
	return nil
}

// clear implements peers.Config.Clear.
func (a *assembly) clear(ctx context.Context) error { return a.door.Clear(ctx) }

// standAlone serves every partition: nobody else has the log.
func (a *assembly) standAlone() {
	all := make([]int32, a.storage.Partitions())
	for i := range all {
		all[i] = int32(i)
	}
	a.life.start("peers", a.alone.Run)
	a.life.start("partitions", func(ctx context.Context) error { return a.host.Serve(ctx, all) })
}

// serve answers other nodes until ctx ends.
func (c *cluster) serve(ctx context.Context, s *grpc.Server) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(c.listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	c.remote.Stop().Wait()
	s.Stop()
	return nil
}

// fresh says that the group took this node for a member a moment ago.
func (c *cluster) fresh() bool { return time.Since(c.group.Heard()) < sessionFresh }

// served is told by the host of every partition that it begins or ceases to serve.
func (c *cluster) served(p int32, epoch uint64, serving bool) {
	c.a.served(p, epoch, serving)
	if rows := c.a.rows; rows != nil {
		if serving {
			rows.Own(p)
		} else {
			rows.Release(p)
		}
	}
	c.a.commands.Served(p, serving)
	c.peers.Served(p, epoch, serving)
	c.reroute()
	c.mover.Changed()
}

// node is told every record of doppel.nodes.
func (c *cluster) node(id string, n *doppelv1.NodeRecord) {
	if n == nil {
		if address, ok := c.peers.Address(id); ok {
			c.remote.Forget(address)
			c.a.router.Forget(address)
		}
	}
	c.peers.Node(id, n)
	c.reroute()
	c.mover.Changed()
}

// reroute says anew where every partition is served: by whom its newest epoch was heard of, or else by whom
// the table says.
func (c *cluster) reroute() {
	c.routing.Lock() // or an older picture might come last
	defer c.routing.Unlock()
	routes := make([]router.Route, c.a.storage.Partitions())
	table := c.group.Table()
	for p := range routes {
		id, address, _, ok := c.peers.Server(int32(p))
		if !ok {
			if id, ok = table.Owner(int32(p)); ok && id != c.a.id {
				address, _ = c.peers.Address(id)
			}
		}
		routes[p] = router.Route{Local: ok && id == c.a.id, Address: address}
	}
	c.routes.Store(&routes)
}

// placed says that every partition is served as far as this node knows.
func (c *cluster) placed() bool {
	for p := range c.a.storage.Partitions() {
		if _, _, _, ok := c.peers.Server(p); !ok {
			return false
		}
	}
	return true
}

// atRest says that no partition is about to move, as far as this node knows: the nodes are all there, and each
// partition is served by whom the table says.
func (c *cluster) atRest() bool {
	if !c.registry.Gathered() {
		return false
	}
	table := c.group.Table()
	for p := range c.a.storage.Partitions() {
		owner, assigned := table.Owner(p)
		if id, _, _, served := c.peers.Server(p); !assigned || !served || id != owner {
			return false
		}
	}
	return true
}

// awaitRest returns when no partition is about to move, or ctx ends.
func (c *cluster) awaitRest(ctx context.Context) {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !c.atRest() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// seated is nil once the node is a member, and nothing that is assigned to it waits for its first owner.
func (c *cluster) seated() error {
	table := c.group.Table()
	if !table.Has(c.a.id) {
		return errors.New("not in the group of nodes yet")
	}
	for p := range c.a.storage.Partitions() {
		if id, _ := table.Owner(p); id != c.a.id {
			continue
		}
		if _, _, _, ok := c.peers.Server(p); !ok {
			return fmt.Errorf("partition %d, which is assigned to this node, is not served yet", p)
		}
	}
	return nil
}

// route implements router.Config.Route.
func (c *cluster) route(p int32) router.Route { return (*c.routes.Load())[p] }

// adopt takes over the MQTT session of a dead node.
func (c *cluster) adopt(ctx context.Context, n *doppelv1.NodeRecord) error {
	a := c.a
	if a.cfg.embeddedBroker() || n.GetMqttClientId() == "" {
		return nil // there is no session that outlives its node
	}
	cfg := a.mqttConfig()
	cfg.ClientID, cfg.Permit = n.GetMqttClientId(), nil
	return mqtt.Adopt(ctx, cfg, a.router, a.host, a.log.With("component", "adoption", "node_id", n.GetId()))
}

// others says whether another node of the group takes partitions.
func (c *cluster) others() bool {
	t := c.group.Table()
	return t != nil && slices.ContainsFunc(t.Members, func(m placement.Member) bool { return m.ID != c.a.id && m.Capacity > 0 })
}

// commitEvery is how often the place in doppel.ingest is written as the group's offsets, which are a figure
// of lag only (G2).
const commitEvery = 5 * time.Second

func (c *cluster) commit(ctx context.Context) error {
	t := time.NewTicker(commitEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		offsets := make(map[int32]int64)
		for _, v := range c.a.host.Partitions() {
			if v.State == host.Serving {
				offsets[v.ID] = v.Ingest
			}
		}
		if err := c.group.Commit(ctx, offsets); err != nil && ctx.Err() == nil {
			c.a.log.DebugContext(ctx, "ingest offsets not committed", "err", err)
		}
	}
}

// movable is the host as handover moves its partitions.
type movable struct{ a *assembly }

func (m movable) Own(p int32)                                { m.a.host.Own(p) }
func (m movable) Warm(ctx context.Context, p int32) error    { return m.a.host.Warm(ctx, p) }
func (m movable) Release(ctx context.Context, p int32) error { return m.a.host.Release(ctx, p) }
func (m movable) Drop(p int32)                               { m.a.host.Drop(p) }
func (m movable) Serves(p int32) bool                        { return m.a.cluster.peers.Serves(p) }
