package api

import (
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

const (
	changeShards = 16
	// sinceChunk bounds how long a reader keeps a shard from its writers.
	sinceChunk = 512
)

// changes remembers which twins changed in which order: for each twin only its latest change. A
// reader asks "which since?" and so gets changes merged, however slow it is, at no cost to writers
// and with no queue of its own. Memory grows with the twins that changed, never with the readers.
//
// Changes are numbered by one counter across shards. Invariant: a number is drawn and entered under
// one hold of its shard's lock, so a reader that loads the counter and then locks a shard sees every
// change of that shard up to what it loaded.
type changes struct {
	seq    atomic.Uint64
	shards [changeShards]changeShard

	// Subscribers without ids wait here; the first change takes the whole list and wakes it.
	armed atomic.Int32
	mu    sync.Mutex
	all   []*waiter
}

type changeShard struct {
	mu    sync.Mutex
	byID  map[string]uint32 // index in devs
	devs  []changedTwin
	log   []change // by seq, ascending; an entry is live if its twin has not changed again
	watch map[string][]*waiter
}

type changedTwin struct {
	id  string
	seq uint64 // latest change
	own bool   // it happened at this node
}

type change struct {
	seq uint64
	dev uint32
}

func (c *changes) shard(id string) *changeShard {
	return &c.shards[xxhash.Sum64String(id)%changeShards]
}

// note enters a change, of this node's own or another's. It keeps no part of id.
func (c *changes) note(id string, own bool) {
	s := c.shard(id)
	s.mu.Lock()
	dev, ok := s.byID[id]
	if !ok {
		if s.byID == nil {
			s.byID = make(map[string]uint32)
		}
		id = strings.Clone(id)
		dev = uint32(len(s.devs))
		s.devs = append(s.devs, changedTwin{id: id})
		s.byID[id] = dev
	}
	seq := c.seq.Add(1)
	s.devs[dev].seq, s.devs[dev].own = seq, own
	s.log = append(s.log, change{seq: seq, dev: dev})
	if len(s.log) > 2*len(s.devs)+1024 {
		s.compact()
	}
	for _, w := range s.watch[id] {
		w.ring()
	}
	s.mu.Unlock()

	if c.armed.Load() > 0 {
		c.ringAll()
	}
}

// compact drops entries of twins that changed again: amortised a few nanoseconds a change.
func (s *changeShard) compact() {
	live := s.log[:0]
	for _, e := range s.log {
		if s.devs[e.dev].seq == e.seq {
			live = append(live, e)
		}
	}
	s.log = live
}

func (c *changes) ringAll() {
	c.mu.Lock()
	all := c.all
	c.all = nil
	c.armed.Store(0)
	c.mu.Unlock()
	ringEach(all)
}

// armAll puts w up for the next change of any twin. The caller must look at the counter again
// before it waits.
func (c *changes) armAll(w *waiter) {
	if !w.armed.CompareAndSwap(false, true) {
		return // still up
	}
	c.mu.Lock()
	c.all = append(c.all, w)
	c.armed.Store(int32(len(c.all)))
	c.mu.Unlock()
}

// forget takes w off the list of those waiting for any twin.
func (c *changes) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.all {
		if other == w {
			last := len(c.all) - 1
			c.all[i] = c.all[last]
			c.all[last] = nil
			c.all = c.all[:last]
			break
		}
	}
	c.armed.Store(int32(len(c.all)))
}

// watchIDs has w rung by changes of these twins, whether they exist or not.
func (c *changes) watchIDs(w *waiter, ids []string) {
	for _, id := range ids {
		s := c.shard(id)
		s.mu.Lock()
		if s.watch == nil {
			s.watch = make(map[string][]*waiter)
		}
		s.watch[id] = append(s.watch[id], w)
		s.mu.Unlock()
	}
}

func (c *changes) unwatchIDs(w *waiter, ids []string) {
	for _, id := range ids {
		s := c.shard(id)
		s.mu.Lock()
		ws := s.watch[id]
		for i, other := range ws {
			if other == w {
				ws = append(ws[:i:i], ws[i+1:]...)
				break
			}
		}
		if len(ws) == 0 {
			delete(s.watch, id)
		} else {
			s.watch[id] = ws
		}
		s.mu.Unlock()
	}
}

// amongIDs appends to buf those of ids that changed after the number given.
func (c *changes) amongIDs(buf, ids []string, after uint64) []string {
	for _, id := range ids {
		s := c.shard(id)
		s.mu.Lock()
		if dev, ok := s.byID[id]; ok && s.devs[dev].seq > after {
			buf = append(buf, id)
		}
		s.mu.Unlock()
	}
	return buf
}

// since appends to buf at most sinceChunk twins of shard i whose latest change lies in
// (after, upTo], own: only of this node's. done is false if there are more behind next.
//
// A twin that changes again while a reader walks is met by the reader's next walk.
func (c *changes) since(i int, buf []string, after, upTo uint64, own bool) (_ []string, next uint64, done bool) {
	s := &c.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	from := sort.Search(len(s.log), func(k int) bool { return s.log[k].seq > after })
	for n, e := range s.log[from:] {
		if e.seq > upTo {
			break
		}
		if n == sinceChunk {
			return buf, s.log[from+n-1].seq, false
		}
		if d := s.devs[e.dev]; d.seq == e.seq && (d.own || !own) {
			buf = append(buf, d.id)
		}
	}
	return buf, upTo, true
}

// clear forgets every change, not who watches.
func (c *changes) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.byID, s.devs, s.log = nil, nil, nil
		s.mu.Unlock()
	}
}
