// Package router takes device messages to the owner of their partition.
//
// Today every partition is owned by this node. The door that delivered a message keeps it until its
// Reply is called, so a router may refuse (host.NotOwner, host.Busy) at any time.
package router

import (
	"context"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// Owners is where the partitions of this node are.
type Owners interface {
	Push(ctx context.Context, p int32, msgs []host.Message) error
}

// Router spreads batches over partitions. Safe for concurrent use.
type Router struct {
	local      Owners
	partitions int32
	sorters    sync.Pool
}

// New returns a Router over n partitions.
func New(local Owners, n int32) *Router {
	r := &Router{local: local, partitions: n}
	r.sorters.New = func() any { return &sorter{heads: make([]int32, n)} }
	return r
}

// sorter is scratch: messages sorted by partition, in their order within each.
type sorter struct {
	heads []int32 // of each partition: count, then start
	parts []int32 // of each message
	out   []host.Message
}

// Deliver hands msgs to their partitions, in order within each, waiting while one is full. After an
// error the messages not yet handed over got the verdict host.Busy.
func (r *Router) Deliver(ctx context.Context, msgs []host.Message) error {
	if len(msgs) == 1 {
		err := r.local.Push(ctx, placement.Partition(msgs[0].Device, r.partitions), msgs)
		if err != nil {
			busy(msgs)
		}
		return err
	}
	s := r.sorters.Get().(*sorter) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer r.put(s)
	s.sort(msgs, r.partitions)
	start := int32(0)
	for p := range r.partitions {
		end := s.heads[p]
		if end == start {
			continue
		}
		if err := r.local.Push(ctx, p, s.out[start:end]); err != nil {
			busy(s.out[start:])
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
