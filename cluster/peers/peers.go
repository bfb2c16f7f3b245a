// Package peers keeps the nodes of a cluster informed of each other: which partitions each of them
// serves, and whether its gateway may still hold messages that others wait for.
//
// Every node sends every other a heartbeat several times a second, and at once when what it serves
// changes. From them follow Server, which routers ask, and the port Gateways of actors/host, which
// partitions ask before they give up on a missing number (clearance.go).
//
// It decides nothing: who should own what is the business of the consumer group, who does is decided by
// the log. What it says may be old by a heartbeat, and everybody who acts on it can be told no.
//
// Safe for concurrent use. Run owns the two goroutines.
package peers

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Actor is the name under which heartbeats are received.
const Actor = "peers"

// Wire carries messages between nodes, at most once and in the order of their sender.
type Wire interface {
	Tell(address, actor string, m proto.Message) error
	Handle(actor string, fn func(from string, m proto.Message))
}

// Config of Peers. Node, Incarnation and Logger must be set.
type Config struct {
	Node        string
	Incarnation uint64 // grows with each start of the node
	Wire        Wire   // nil: there are no other nodes
	// Clear returns nil when everything that the broker had sent to this node's gateway before the call is
	// released, or durable in doppel.ingest. Nil: this node's gateway never holds what another one's
	// messages could overtake.
	Clear func(ctx context.Context) error
	// Every is the time between two heartbeats (default 100 ms).
	Every time.Duration
	// Changed is called, without blocking, when another node says that it serves something else than
	// before; nil: nobody cares.
	Changed func()
	Clock   func() time.Time // default: the system's
	Logger  *slog.Logger
}

// peer is another node as its record and its heartbeats show it.
type peer struct {
	address     string
	incarnation uint64 // of its newest heartbeat
	seq         uint64
	heard       time.Time
	knows       bool             // of our record: it was heard of since that was written
	serves      map[int32]uint64 // epoch by partition
	cleared     beatSeen         // of its heartbeats, the newest that this node has cleared
}

// Peers is this node's picture of the others.
type Peers struct {
	cfg  Config
	kick chan struct{}

	mu        sync.Mutex
	nodes     map[string]*peer // by id; without this node
	known     bool             // nodes is complete
	serves    map[int32]uint64 // of this node
	clearance clearance
}

// New returns Peers that know of nobody.
func New(cfg Config) (*Peers, error) {
	if cfg.Node == "" || cfg.Logger == nil {
		return nil, errors.New("peers: node and logger must be set")
	}
	cfg.Every = cmp.Or(cfg.Every, 100*time.Millisecond)
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	p := &Peers{
		cfg: cfg, kick: make(chan struct{}, 1),
		nodes: make(map[string]*peer), serves: make(map[int32]uint64),
		clearance: newClearance(cfg.Node),
	}
	return p, nil
}

// Node enters a record of doppel.nodes: a node whose gateway may hold messages from now on. nil: it holds
// none any more, having left or been adopted.
func (p *Peers) Node(id string, rec *doppelv1.NodeRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case id == p.cfg.Node:
		if rec == nil { // they forget us, too
			for _, n := range p.nodes {
				n.knows = false
			}
		}
	case rec == nil:
		delete(p.nodes, id)
		p.clearance.remove(id)
	default:
		n := p.nodes[id]
		if n == nil {
			n = &peer{}
			p.nodes[id] = n
		}
		n.address = rec.GetAddress()
		p.clearance.add(id)
	}
}

// Known says that Node was told everything that stood in doppel.nodes at the start.
func (p *Peers) Known() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = true
}

// Served implements host.Config.Served: this node begins or ceases to serve a partition.
func (p *Peers) Served(partition int32, epoch uint64, serving bool) {
	p.mu.Lock()
	if serving {
		p.serves[partition] = epoch
	} else {
		delete(p.serves, partition)
	}
	p.mu.Unlock()
	p.hurry()
}

// Serves says whether this node serves a partition.
func (p *Peers) Serves(partition int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, mine := p.serves[partition]
	return mine
}

// Server is the node that serves a partition by the newest epoch heard of; false: none is known to.
// address is empty for this node.
func (p *Peers) Server(partition int32) (id, address string, epoch uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, mine := p.serves[partition]; mine {
		id, epoch, ok = p.cfg.Node, e, true
	}
	for other, n := range p.nodes {
		if e, serves := n.serves[partition]; serves && (!ok || e > epoch) {
			id, address, epoch, ok = other, n.address, e, true
		}
	}
	return id, address, epoch, ok
}

// Address is where a node is reached; false: it has no record.
func (p *Peers) Address(id string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[id]
	if n == nil {
		return "", false
	}
	return n.address, true
}

// Heard is when the last heartbeat of a node came; zero: never.
func (p *Peers) Heard(id string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[id]; n != nil {
		return n.heard
	}
	return time.Time{}
}

// Met says that every other node of ids knows that messages may wait here, but for those that have fallen
// silent: whoever sends us a heartbeat has read our record.
func (p *Peers) Met(ids []string, within time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		n := p.nodes[id]
		switch {
		case n == nil:
			return false
		case n.knows, !n.heard.IsZero() && p.cfg.Clock().Sub(n.heard) >= within:
		default:
			return false
		}
	}
	return true
}

// hurry has a heartbeat sent now.
func (p *Peers) hurry() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}
