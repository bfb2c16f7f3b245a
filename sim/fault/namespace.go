package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// namespaces are the network namespaces of a cluster's nodes, joined by a lan. The servers stay in the
// namespace of this process, with an address each.
type namespaces struct {
	*lan

	dir   string // where the guard finds their names
	names map[Subject]string
}

// hosts are the parties that live in the namespace of this process, by the last part of their address.
// The first is the one from which this process calls.
var hosts = []Subject{Tester, Kafka, Mosquitto}

// firstNode is the last part of the first node's address.
const firstNode = 11

// namespacesFile lists the namespaces of a rig, for its guard.
const namespacesFile = "namespaces"

// newNamespaces makes a namespace for each node. Its error may be that this machine does not let us.
func newNamespaces(ctx context.Context, dir string, nodes []Subject, seed uint64) (*namespaces, error) {
	ns := &namespaces{lan: &lan{}, dir: dir, names: make(map[Subject]string)}
	if err := ns.make(ctx, nodes, seed); err != nil {
		ns.close() //nolint:contextcheck // deleted whatever ended ctx
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	return ns, nil
}

func (ns *namespaces) make(ctx context.Context, nodes []Subject, seed uint64) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make them")
	}
	base := fmt.Sprintf("dpl%06x", rand.Uint32()&0xffffff) // two rigs must not draw the same
	net := [4]byte{10, byte(64 + rand.IntN(128)), byte(rand.IntN(256)), 0}
	address := func(last int) netip.Addr { net[3] = byte(last); return netip.AddrFrom4(net) }
	at := make(map[Subject]*port)
	outside, err := openPort(base + "h")
	if err != nil {
		return err
	}
	for i, s := range hosts {
		at[s] = outside
		ns.connect(s, address(i+1), outside)
		if err := ip(ctx, "addr", "add", address(i+1).String()+"/24", "dev", outside.name); err != nil {
			return err
		}
	}
	if err := up(ctx, outside.name); err != nil {
		return err
	}
	for i, s := range nodes {
		name := base + "-" + strconv.Itoa(i+1)
		inside, err := openPort(base + strconv.Itoa(i+1))
		if err != nil {
			return err
		}
		at[s] = inside
		ns.connect(s, address(firstNode+i), inside)
		ns.names[s] = name
		if err := ns.note(); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"netns", "add", name},
			{"link", "set", inside.name, "netns", name},
			{"-n", name, "addr", "add", address(firstNode+i).String() + "/24", "dev", inside.name},
			{"-n", name, "link", "set", "lo", "up"},
		} {
			if err := ip(ctx, args...); err != nil {
				return err
			}
		}
		if err := up(ctx, inside.name, "-n", name); err != nil {
			return err
		}
	}
	ns.run(at, seed)
	return nil
}

func up(ctx context.Context, device string, before ...string) error {
	return ip(ctx, append(before, "link", "set", device, "mtu", strconv.Itoa(lanMTU), "txqueuelen", strconv.Itoa(lanQueue), "up")...)
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput() //nolint:gosec // arguments of our own making
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// note tells the guard before they exist.
func (ns *namespaces) note() error {
	var all strings.Builder
	for _, name := range ns.names {
		all.WriteString(name + "\n")
	}
	return os.WriteFile(filepath.Join(ns.dir, namespacesFile), []byte(all.String()), 0o600)
}

// enter is the command line that runs something as a node.
func (ns *namespaces) enter(s Subject) []string { return []string{"ip", "netns", "exec", ns.names[s]} }

// close deletes them; nothing may run in them any more.
func (ns *namespaces) close() {
	ns.lan.close()
	for _, name := range ns.names {
		_ = ip(context.Background(), "netns", "del", name) // the guard tries again
	}
}
