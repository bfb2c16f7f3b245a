package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/doppel-iot/doppel/sim/device"
)

// Members are the nodes of a cluster.
func Members() []Subject { return []Subject{"node-1", "node-2", "node-3"} }

// clusterPartitions is less than the product's default on Kafka: two cores fill few batches.
const clusterPartitions = 24

// ClusterConfig is what a cluster is made of.
type ClusterConfig struct {
	Root     string   // of the repository
	Dir      string   // where everything is written
	Members  []string // the doppel command of each node, Members() at most
	Seed     uint64   // of what a lossy link loses
	Proxied  bool     // behind proxies even where network namespaces can be had
	Settings []string // further flags of every node
}

// NewCluster starts Kafka, Mosquitto and the nodes of a cluster, in network namespaces or, where there are
// none to be had, behind proxies.
func NewCluster(ctx context.Context, c *ClusterConfig) (*Rig, error) {
	r, err := emptyRig(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := r.cluster(ctx, c); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Rig) cluster(ctx context.Context, c *ClusterConfig) error {
	members := Members()[:len(c.Members)]
	ports := device.NewRandom(seedOfPorts(), 0)
	why := errors.New("as asked for")
	var ns *namespaces
	if !c.Proxied {
		ns, why = newNamespaces(ctx, r.Dir, members, c.Seed)
	}
	var err error
	if ns != nil {
		r.wiring, r.Network = ns, "network namespaces"
		err = r.spread(ctx, c, members, ns, ports)
	} else {
		r.Network = fmt.Sprintf("proxies (%v)", why)
		err = r.gather(ctx, c, members, ports)
	}
	if err != nil {
		return err
	}
	r.cable(members)
	return r.startNodes(ctx)
}

// spread prepares servers and nodes in namespaces.
func (r *Rig) spread(ctx context.Context, c *ClusterConfig, members []Subject, ns *namespaces, ports *device.Random) error {
	at := make(map[Subject]string)
	for _, s := range []Subject{Kafka, Mosquitto} {
		host := ns.addresses[s].String()
		port, err1 := freePort(ctx, ports, companions[s]...)
		dir, err2 := r.folder(s)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		at[s] = net.JoinHostPort(host, strconv.Itoa(port))
		r.processes[s] = newService(s, c.Root, dir, port, "--host", host)
	}
	if err := r.startAll(ctx); err != nil {
		return err
	}
	r.Devices, r.Kafka = "mqtt://"+at[Mosquitto], at[Kafka]
	for i, s := range members {
		// Their addresses are their own, so the ports may be anybody's.
		on := func(port string) string { return net.JoinHostPort(ns.addresses[s].String(), port) }
		n, err := r.addNode(s, c.Members[i], on("9090"), on("8080"),
			append(member(s, on("9090"), on("8080"), on("7946"), on("7946"), at[Kafka], at[Mosquitto]), c.Settings...))
		if err != nil {
			return err
		}
		n.before = ns.enter(s)
	}
	return nil
}

// gather prepares servers and nodes on loopback, with proxies between them.
func (r *Rig) gather(ctx context.Context, c *ClusterConfig, members []Subject, ports *device.Random) error {
	through := newRelays(members, r.pid)
	r.wiring = through
	port := make(map[Subject]int)
	for _, s := range []Subject{Kafka, Mosquitto} {
		var err error
		if port[s], err = freePort(ctx, ports, companions[s]...); err != nil {
			return err
		}
	}
	// Each node has a listener of Kafka of its own, which sends it back to its own proxy.
	var listeners []string
	kafka, mqtt := make(map[Subject]string), make(map[Subject]string)
	for _, s := range members {
		listener, err := freePort(ctx, ports)
		if err != nil {
			return err
		}
		k, err1 := through.toServer(ctx, s, Kafka, local(listener))
		m, err2 := through.toServer(ctx, s, Mosquitto, local(port[Mosquitto]))
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		listeners = append(listeners, "--listener", local(listener)+"="+k.Addr())
		kafka[s], mqtt[s] = k.Addr(), m.Addr()
	}
	for s, more := range map[Subject][]string{Kafka: listeners, Mosquitto: nil} {
		dir, err := r.folder(s)
		if err != nil {
			return err
		}
		r.know(s, newService(s, c.Root, dir, port[s], more...))
	}
	if err := r.startAll(ctx); err != nil {
		return err
	}
	r.Devices, r.Kafka = "mqtt://"+local(port[Mosquitto]), local(port[Kafka])
	for i, s := range members {
		var own [3]string
		for k := range own {
			p, err := freePort(ctx, ports)
			if err != nil {
				return err
			}
			own[k] = local(p)
		}
		front, err := through.toNode(ctx, s, own[2])
		if err != nil {
			return err
		}
		if _, err := r.addNode(s, c.Members[i], own[0], own[1],
			append(member(s, own[0], own[1], own[2], front.Addr(), kafka[s], mqtt[s]), c.Settings...)); err != nil {
			return err
		}
	}
	return nil
}

// member is the command line of a node of a cluster.
func member(s Subject, grpc, http, listen, advertise, kafka, mqtt string) []string {
	return []string{
		"run", "--data-dir", "data", "--node-id", string(s), "--addresses-file", addressesFile, "--insecure",
		"--grpc-addr", grpc, "--http-addr", http, "--node-addr", listen, "--advertise", advertise,
		"--kafka", kafka, "--mqtt", "mqtt://" + mqtt, "--partitions", strconv.Itoa(clusterPartitions),
	}
}

// cable lists the links.
func (r *Rig) cable(members []Subject) {
	r.cables = make(map[Subject]*cable)
	for i, a := range members {
		for _, b := range append([]Subject{Kafka, Mosquitto}, members[i+1:]...) {
			r.cables[Between(a, b)] = &cable{a: a, b: b, wiring: r.wiring}
		}
	}
}

// startNodes starts all nodes at once.
func (r *Rig) startNodes(ctx context.Context) error {
	for _, n := range r.nodes {
		if err := n.run(ctx); err != nil {
			return err
		}
	}
	r.GRPC, r.HTTP = r.nodes[0].grpc, r.nodes[0].http
	if !r.Ready(ctx) {
		return fmt.Errorf("the cluster is not ready: %s", r.LogTail())
	}
	return nil
}
