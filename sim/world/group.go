package world

import (
	"slices"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// group is a model of the consumer group and of doppel.nodes: who is a member, the newest table, and the
// records of nodes. What a process knows of it is as old as the world wants.
type group struct {
	members    []*process
	generation int64
	table      *placement.Table
	nodes      []nodeRecord // doppel.nodes, never compacted
}

type nodeRecord struct {
	id  string
	rec *doppelv1.NodeRecord // nil: it ended
}

// join makes p a member.
func (w *World) join(p *process) {
	w.group.members = slices.DeleteFunc(w.group.members, func(m *process) bool { return m.n == p.n })
	w.group.members = append(w.group.members, p)
	w.rebalance()
}

// expel ends the membership of p, which may not know.
func (w *World) expel(p *process) {
	before := len(w.group.members)
	w.group.members = slices.DeleteFunc(w.group.members, func(m *process) bool { return m == p })
	if len(w.group.members) < before {
		w.tracef("group: %s is out", p.n.name)
		w.rebalance()
	}
}

func (w *World) member(p *process) bool { return slices.Contains(w.group.members, p) }

// rebalance makes the next table.
func (w *World) rebalance() {
	g := &w.group
	g.generation++
	w.counts.tables++
	members := make([]placement.Member, len(g.members))
	for i, p := range g.members {
		members[i] = placement.Member{ID: p.n.name, Incarnation: p.incarnation, Capacity: p.n.capacity, Owned: g.table.Owned(p.n.name)}
	}
	g.table = placement.NewTable(g.generation, members, int32(len(w.shards)))
	w.tracef("group: table %d %v of %d members", g.generation, g.table.Owners, len(members))
}

// learn is an answer of the coordinator to p.
func (w *World) learn(p *process) bool {
	if p.idle() || p.cut {
		return false
	}
	changed := p.readNodes()
	if p.leaving {
		return changed
	}
	if !w.member(p) {
		w.join(p)
		changed = true
	}
	if p.table != w.group.table || !p.fresh {
		p.table, p.fresh = w.group.table, true
		p.mover.Table(p.table)
		changed = true
	}
	return w.attend(p) || changed
}

// readNodes reads what is new in doppel.nodes.
func (p *process) readNodes() bool {
	news := p.w.group.nodes[p.known:]
	p.known = len(p.w.group.nodes)
	for _, r := range news {
		p.peers.Node(r.id, r.rec)
	}
	return len(news) > 0
}

// recorded is the record of a node in doppel.nodes, nil: none.
func (g *group) recorded(id string) *doppelv1.NodeRecord {
	for _, r := range slices.Backward(g.nodes) {
		if r.id == id {
			return r.rec
		}
	}
	return nil
}

func (g *group) put(id string, rec *doppelv1.NodeRecord) {
	g.nodes = append(g.nodes, nodeRecord{id, rec})
}
