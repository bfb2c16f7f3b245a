package node

import (
	"github.com/doppel-iot/doppel/cluster/query"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// queryConfig is how questions find their way to the nodes that can answer them.
func (a *assembly) queryConfig() query.Config {
	cfg := query.Config{Node: a.id, Host: a.host, Commands: command.Local{Book: a.commands}, Partitions: a.storage.Partitions(), Logger: a.log.With("component", "query")}
	if c := a.cluster; c != nil {
		cfg.Route = func(p int32) query.Route { return query.Route(c.route(p)) }
		cfg.Conn, cfg.Members = c.remote.Conn, c.members
	}
	return cfg
}

// newHub makes what watches look at; it follows doppel.alerts from here on.
func (a *assembly) newHub() *api.Hub {
	cfg := api.HubConfig{Alerts: a.storage.AlertLog(), Log: a.log.With("component", "hub")}
	if a.cluster != nil {
		cfg.Others = query.NewFeeds(a.queryConfig())
	}
	hub := api.NewHub(cfg)
	a.life.start("alerts", hub.Run)
	return hub
}

// newFleet adds up what all nodes say of themselves.
func (a *assembly) newFleet(r *query.Reader) *query.Fleet {
	cfg := query.FleetConfig{Reader: r, Part: a.fleet, Letters: a.storage.Letters()}
	if a.cluster != nil {
		cfg.Target = a.cluster.target
		a.fleet.describe, a.fleet.drain = a.cluster.describe, a.cluster.drain
	}
	return query.NewFleet(cfg)
}

// members are the nodes of the cluster, and those that died and were not adopted yet.
func (c *cluster) members() []*doppelv1.NodeRecord {
	var all []*doppelv1.NodeRecord
	for _, n := range c.registry.Records() {
		all = append(all, n)
	}
	return all
}

// target is the node that is to own a partition by the newest table.
func (c *cluster) target(p int32) string {
	id, _ := c.group.Table().Owner(p)
	return id
}

// describe adds what the group and the door know of this node.
func (c *cluster) describe(n *doppelv1.Node) {
	n.Unacknowledged = uint64(max(0, c.a.door.Stats().Unacked.Load()))
	m, in := c.group.Table().Member(c.a.id)
	if !in {
		n.State = "joining"
		return
	}
	n.Generation, n.Capacity = c.group.Table().Generation, uint32(m.Capacity)
	switch {
	case m.Capacity > 0 || c.a.cfg.Capacity == 0 && !c.draining.Load():
	case n.GetPartitions() > 0 || !c.unshared.Load():
		n.State = "draining"
	default:
		n.State = "drained" // and may be stopped: nothing comes to it
	}
}
