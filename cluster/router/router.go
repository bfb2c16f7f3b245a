// Package router takes device messages to the owner of their partition: by the fast path into its
// mailbox, or, while there is none that takes them, by the slow path into doppel.ingest (detour.go).
//
// The owner may be another node: then the router of that node takes the messages (inbox.go) and sends
// their verdicts back. It never sends them on, so a message hops once at most. The door that delivered
// a message keeps it until its Reply is called (rule G1), so a router may refuse (host.NotOwner,
// host.Busy) at any time: the door delivers again, and the way is chosen anew.
package router

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// Owners is where the partitions of this node are; see actors/host.
type Owners interface {
	// Push waits for ever, Offer only while the partition is served and gets on; Takes says what
	// Offer would. An error means that none of msgs was taken.
	Push(ctx context.Context, p int32, msgs []host.Message) error
	Offer(ctx context.Context, p int32, msgs []host.Message, patience time.Duration) error
	Takes(p int32, patience time.Duration) error
	Partition(p int32) host.View
}

// Config of a Router.
type Config struct {
	Owners     Owners
	Partitions int32
	// Ingest is the slow path; nil: there is none, messages wait for their owner.
	Ingest Ingest
	// Patience is how long a partition may stand still before messages go round it (default 1 s).
	Patience time.Duration
	// Window bounds the messages of a partition on the slow path that are not durable yet (default
	// 1,024), WindowBytes what they may weigh (default 2 MiB, and one message on top).
	Window, WindowBytes int

	// Wire reaches other nodes; nil: this node serves all there is. It needs Ingest and Route.
	Wire Wire
	// Route says where a partition is served. It is asked for every batch and must not block.
	Route func(p int32) Route
	// Linger is how often messages for a node leave at most, and verdicts half as often, unless there
	// are many (default 16 ms; negative: as they come). What follows a pause does not wait.
	Linger time.Duration
	// PeerWindow bounds the messages on their way to one node, without a verdict (default 8,192),
	// PeerWindowBytes what they may weigh (default 8 MiB); one batch may pass them.
	PeerWindow, PeerWindowBytes int
	// RoomWithin is how long a Deliver waits for what is in the way of its messages for other nodes
	// (default 100 ms); then they take the slow path. So do those that are not in the mailbox of their
	// owner AcceptWithin after they were delivered (default 1 s), those with a node of which nothing
	// was heard for SilentAfter (default 700 ms), and those without a verdict after VerdictWithin
	// (default 10 s). Shorter ones make a machine that is short of CPU do its work twice: what is late
	// has mostly been taken, and comes again from the log. No gap is declared meanwhile (rule P2), since
	// the door clears no mark before its messages have their verdicts.
	RoomWithin, AcceptWithin, SilentAfter, VerdictWithin time.Duration

	Beside Beside // nil: goroutines and the system's clock
}

func (c Config) withDefaults() Config {
	c.Patience = cmp.Or(c.Patience, time.Second)
	c.Window = cmp.Or(c.Window, 1024)
	c.WindowBytes = cmp.Or(c.WindowBytes, 2<<20)
	c.Linger = cmp.Or(c.Linger, 16*time.Millisecond)
	c.PeerWindow = cmp.Or(c.PeerWindow, 8192)
	c.PeerWindowBytes = cmp.Or(c.PeerWindowBytes, 8<<20)
	c.RoomWithin = cmp.Or(c.RoomWithin, 100*time.Millisecond)
	c.AcceptWithin = cmp.Or(c.AcceptWithin, time.Second)
	c.SilentAfter = cmp.Or(c.SilentAfter, 700*time.Millisecond)
	c.VerdictWithin = cmp.Or(c.VerdictWithin, 10*time.Second)
	if c.Beside == nil {
		c.Beside = goroutines{}
	}
	return c
}

// Router spreads batches over partitions. Safe for concurrent use.
type Router struct {
	cfg     Config
	detours []detour
	stats   Stats
	sorters sync.Pool
	answers sync.Pool
	inbox   *inbox // nil: no wire

	peersMu sync.RWMutex
	peers   map[string]*peer // by address
	closed  bool
}

// New returns a Router. With a wire it takes messages from other nodes from now on, until Close.
func New(cfg Config) *Router {
	cfg = cfg.withDefaults()
	r := &Router{cfg: cfg, detours: make([]detour, cfg.Partitions), peers: make(map[string]*peer)}
	r.sorters.New = func() any { return &sorter{heads: make([]int32, cfg.Partitions)} }
	r.answers.New = func() any { return new(answers) }
	if cfg.Wire != nil {
		r.inbox = newInbox(r)
		cfg.Wire.HandleEncoded(inboxName, codec.DeliveryType, r.inbox.take)
		cfg.Wire.Handle(outboxName, r.hear)
	}
	return r
}

// Close ends the ways to and from other nodes: what is on one goes back to its door, and other nodes
// get the verdicts that are due and no more. The rest of the Router goes on.
func (r *Router) Close() {
	if r.cfg.Wire == nil {
		return
	}
	r.peersMu.Lock()
	r.closed = true
	peers := slices.Collect(maps.Values(r.peers))
	r.peersMu.Unlock()
	for _, p := range peers {
		p.close()
	}
	r.inbox.close()
}

// Forget drops what is kept for a node that will not come back under its address. What is on the way
// to it goes back to its door.
func (r *Router) Forget(address string) {
	if r.cfg.Wire == nil {
		return
	}
	r.peersMu.Lock()
	p := r.peers[address]
	delete(r.peers, address)
	r.peersMu.Unlock()
	if p != nil {
		p.close()
	}
	r.inbox.forget(address)
}

// Stats are the accounts of the slow path and of the ways between nodes.
func (r *Router) Stats() *Stats { return &r.stats }

// owner is where partition p is served.
func (r *Router) owner(p int32) Route {
	if r.cfg.Wire == nil {
		return Route{Local: true}
	}
	return r.cfg.Route(p)
}

// sorter is scratch: messages sorted by partition, in their order within each.
type sorter struct {
	heads []int32 // of each partition: count, then start
	parts []int32 // of each message
	out   []host.Message
	in    []host.Message // from another node, unsorted
	read  codec.DeliveryReader
	later []span
}

// Deliver hands msgs to their partitions, in order within each, waiting while neither way of one has
// room. After an error the messages not yet handed over got the verdict host.Busy.
func (r *Router) Deliver(ctx context.Context, msgs []host.Message) error {
	var begin time.Time
	if r.cfg.Wire != nil {
		begin = r.now()
	}
	if len(msgs) == 1 {
		return r.route(ctx, begin, placement.Partition(msgs[0].Device, r.cfg.Partitions), msgs)
	}
	s := r.sorters.Get().(*sorter) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer r.put(s)
	s.sort(msgs, r.cfg.Partitions)
	if r.cfg.Wire != nil {
		return r.spread(ctx, begin, s)
	}
	start := int32(0)
	for p := range r.cfg.Partitions {
		end := s.heads[p]
		if end == start {
			continue
		}
		if err := r.route(ctx, begin, p, s.out[start:end]); err != nil {
			busy(s.out[end:])
			return err
		}
		start = end
	}
	return nil
}

// sort is a counting sort; afterwards heads[p] is the end of partition p in out.
func (s *sorter) sort(msgs []host.Message, n int32) {
	clear(s.heads)
	s.parts = s.parts[:0]
	for i := range msgs {
		p := placement.Partition(msgs[i].Device, n)
		s.parts = append(s.parts, p)
		s.heads[p]++
	}
	sum := int32(0)
	for p, count := range s.heads {
		s.heads[p] = sum
		sum += count
	}
	if cap(s.out) < len(msgs) {
		s.out = make([]host.Message, len(msgs))
	}
	s.out = s.out[:len(msgs)]
	for i, p := range s.parts {
		s.out[s.heads[p]] = msgs[i]
		s.heads[p]++
	}
}

func (r *Router) put(s *sorter) {
	clear(s.out)
	clear(s.in)
	s.in, s.later = s.in[:0], s.later[:0]
	r.sorters.Put(s)
}

func busy(msgs []host.Message) {
	for i := range msgs {
		msgs[i].Reply.Done([]uint64{msgs[i].Token}, host.Busy)
	}
}
