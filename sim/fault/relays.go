package fault

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// relays are the network of a cluster where no namespaces can be had: a proxy in front of everything that
// a node talks to. All nodes have one address for each other, so the proxy in front of a node asks the
// system which process a connection comes from.
type relays struct {
	gates   map[[2]Subject]*gate
	proxies []*Proxy
	nodes   []Subject
	pid     func(Subject) int
}

func newRelays(nodes []Subject, pid func(Subject) int) *relays {
	r := &relays{gates: make(map[[2]Subject]*gate), nodes: nodes, pid: pid}
	for _, a := range nodes {
		for _, b := range append([]Subject{Kafka, Mosquitto}, nodes...) {
			r.gates[[2]Subject{a, b}], r.gates[[2]Subject{b, a}] = &gate{}, &gate{}
		}
	}
	return r
}

// toServer leads from a node to a server at an address.
func (r *relays) toServer(ctx context.Context, from, to Subject, address string) (*Proxy, error) {
	return r.open(ctx, address, func(net.Conn) (up, down *gate) { return r.between(from, to) })
}

// toNode leads from the other nodes to one at an address.
func (r *relays) toNode(ctx context.Context, to Subject, address string) (*Proxy, error) {
	return r.open(ctx, address, func(c net.Conn) (up, down *gate) {
		for _, from := range r.nodes {
			if from != to && owns(r.pid(from), c) {
				return r.between(from, to)
			}
		}
		return &gate{}, &gate{} // a stranger, or one that is gone already
	})
}

func (r *relays) open(ctx context.Context, upstream string, gates func(net.Conn) (up, down *gate)) (*Proxy, error) {
	p := &Proxy{upstream: upstream, gates: gates}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	r.proxies = append(r.proxies, p)
	return p, nil
}

func (r *relays) between(a, b Subject) (up, down *gate) {
	return r.gates[[2]Subject{a, b}], r.gates[[2]Subject{b, a}]
}

// disturb implements wiring.
func (r *relays) disturb(from, to Subject, d disturbance) { r.gates[[2]Subject{from, to}].disturb(d) }

func (r *relays) close() {
	for _, p := range r.proxies {
		p.Close()
	}
}

// owns says whether a process has the client's side of a connection over 127.0.0.1.
func owns(pid int, c net.Conn) bool {
	client, ok1 := c.RemoteAddr().(*net.TCPAddr)
	proxy, ok2 := c.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 || pid == 0 {
		return false
	}
	inode, err := inodeOf(client.Port, proxy.Port)
	if err != nil {
		return false
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// inodeOf finds a socket of loopback by its own port and that of its peer: a port alone may have several,
// to different peers or left over from one that has ended. The kernel's table is no snapshot and can miss
// a line while others come and go, so it is read more than once.
func inodeOf(own, peer int) (string, error) {
	const reads = 5
	local, remote := fmt.Sprintf("0100007F:%04X", own), fmt.Sprintf("0100007F:%04X", peer)
	for range reads {
		text, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return "", fmt.Errorf("sockets: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[2] == remote {
				return f[9], nil
			}
		}
	}
	return "", fmt.Errorf("no socket with port %d to port %d", own, peer)
}
