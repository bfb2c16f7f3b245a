// Package router takes device messages to the owner of their partition: by the fast path into its
// mailbox, or, while there is none that takes them, by the slow path into doppel.ingest (detour.go).
//
// Today every partition is owned by this node. The door that delivered a message keeps it until its
// Reply is called (rule G1), so a router may refuse (host.NotOwner, host.Busy) at any time: the door
// delivers again, and the way is chosen anew.
package router

import (
	"cmp"
	"context"
	"sync"
	"time"

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
}

func (c Config) withDefaults() Config {
	c.Patience = cmp.Or(c.Patience, time.Second)
	c.Window = cmp.Or(c.Window, 1024)
	c.WindowBytes = cmp.Or(c.WindowBytes, 2<<20)
	return c
}

// Router spreads batches over partitions. Safe for concurrent use.
type Router struct {
	cfg     Config
	detours []detour
	stats   Stats
	sorters sync.Pool
}

// New returns a Router.
func New(cfg Config) *Router {
	cfg = cfg.withDefaults()
	r := &Router{cfg: cfg, detours: make([]detour, cfg.Partitions)}
	r.sorters.New = func() any { return &sorter{heads: make([]int32, cfg.Partitions)} }
	return r
}

// Stats are the accounts of the slow path.
func (r *Router) Stats() *Stats { return &r.stats }

// sorter is scratch: messages sorted by partition, in their order within each.
type sorter struct {
	heads []int32 // of each partition: count, then start
	parts []int32 // of each message
	out   []host.Message
}

// Deliver hands msgs to their partitions, in order within each, waiting while neither way of one has
// room. After an error the messages not yet handed over got the verdict host.Busy.
func (r *Router) Deliver(ctx context.Context, msgs []host.Message) error {
	if len(msgs) == 1 {
		return r.route(ctx, placement.Partition(msgs[0].Device, r.cfg.Partitions), msgs)
	}
	s := r.sorters.Get().(*sorter) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer r.put(s)
	s.sort(msgs, r.cfg.Partitions)
	start := int32(0)
	for p := range r.cfg.Partitions {
		end := s.heads[p]
		if end == start {
			continue
		}
		if err := r.route(ctx, p, s.out[start:end]); err != nil {
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
	r.sorters.Put(s)
}

func busy(msgs []host.Message) {
	for i := range msgs {
		msgs[i].Reply.Done([]uint64{msgs[i].Token}, host.Busy)
	}
}
