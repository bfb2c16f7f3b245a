package router

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

const (
	// laneMessages and laneBytes bound what waits for one partition; one request may pass them.
	laneMessages = 1024
	laneBytes    = 1 << 20
	// laneWithin is how long it waits: well below AcceptWithin, so that whoever waits hears of it in time.
	laneWithin = 100 * time.Millisecond
)

// inbox takes messages from other nodes to the partitions of this one, and never further.
//
// It does not block: what finds room enters its mailbox on the reader of the wire, without a change
// of goroutine; the rest waits in the lane of its partition.
type inbox struct {
	r     *Router
	lanes []lane
	ended context.Context //nolint:containedctx // it has ended: an Offer with it does not wait

	mu     sync.Mutex
	peers  map[string]*receipts // by address
	closed bool
}

// lane is what waits for one partition, in order.
type lane struct {
	mu      sync.Mutex
	msgs    []host.Message
	spare   []host.Message
	bytes   int
	since   time.Time // the first of msgs came
	working bool      // a goroutine empties it
}

func newInbox(r *Router) *inbox {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return &inbox{r: r, lanes: make([]lane, r.cfg.Partitions), ended: ended, peers: make(map[string]*receipts)}
}

// take is the actor. What is taken shares one copy of the request.
func (b *inbox) take(from string, request []byte) error {
	of := b.receipts(from)
	if of == nil {
		return nil
	}
	s := b.r.sorters.Get().(*sorter) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer b.r.put(s)
	id, err := s.read.Read(bytes.Clone(request), func(m *codec.Delivered) { s.in = append(s.in, restored(m)) })
	switch {
	case err != nil:
		return err
	case len(s.in) == 0:
		of.inquire(id)
		return nil
	}
	b.r.stats.received.Add(uint64(len(s.in)))
	slot := of.begin(id, len(s.in))
	defer of.landed(slot, 1)
	known := s.in[:0]
	for i := range s.in {
		m := &s.in[i]
		m.Reply, m.Token = of, slot<<32|uint64(i)
		if m.Kind == 0 {
			of.Done([]uint64{m.Token}, host.Failed) // a newer build's; doppel.ingest keeps it
			continue
		}
		known = append(known, *m)
	}
	clear(s.in[len(known):])
	s.in = known
	s.sort(s.in, b.r.cfg.Partitions)
	start := int32(0)
	for p, end := range s.heads {
		if end > start {
			b.offer(int32(p), s.out[start:end])
		}
		start = end
	}
	return nil
}

// offer hands msgs to the owner of p or to its lane.
func (b *inbox) offer(p int32, msgs []host.Message) {
	l := &b.lanes[p]
	l.mu.Lock()
	working := l.working
	l.mu.Unlock()
	if !working {
		err := b.r.cfg.Owners.Offer(b.ended, p, msgs, b.r.cfg.Patience)
		if err == nil {
			return
		}
		if v := refusal(err); v != 0 {
			refuse(msgs, v)
			return
		}
	}
	if !b.queue(p, l, msgs) {
		refuse(msgs, host.Busy)
	}
}

// refusal is the verdict that an error of Offer means; 0: that only its context has ended.
func refusal(err error) host.Verdict {
	switch {
	case errors.Is(err, host.ErrSaturated):
		return host.Busy
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return 0
	}
	return host.NotOwner
}

func refuse(msgs []host.Message, v host.Verdict) {
	for i := range msgs {
		msgs[i].Reply.Done([]uint64{msgs[i].Token}, v)
	}
}

// queue puts msgs, all of one node, into the lane; false: it is full.
func (b *inbox) queue(p int32, l *lane, msgs []host.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.msgs) >= laneMessages || l.bytes >= laneBytes {
		return false
	}
	if len(l.msgs) == 0 {
		l.since = b.r.now()
	}
	for i := range msgs {
		l.bytes += weight(&msgs[i])
		b.waits(&msgs[i], 1)
	}
	l.msgs = append(l.msgs, msgs...)
	if !l.working {
		l.working = true
		b.r.cfg.Beside.Go(func() { b.work(p, l) })
	}
	return true
}

// waits counts a message that is not in its mailbox, or is now.
func (b *inbox) waits(m *host.Message, n int) {
	if of, ok := m.Reply.(*receipts); ok {
		of.landed(m.Token>>32, -n)
	}
}

// work empties a lane.
func (b *inbox) work(p int32, l *lane) {
	for {
		l.mu.Lock()
		msgs, since := l.msgs, l.since
		l.msgs, l.spare, l.bytes = l.spare[:0], nil, 0
		l.working = len(msgs) > 0
		l.mu.Unlock()
		if len(msgs) == 0 {
			return
		}
		ctx, cancel := context.WithDeadline(context.Background(), since.Add(laneWithin))
		err := b.r.cfg.Owners.Offer(ctx, p, msgs, b.r.cfg.Patience)
		cancel()
		if err != nil {
			v := refusal(err)
			if v == 0 {
				v = host.Busy
			}
			refuse(msgs, v)
		}
		for i := range msgs {
			b.waits(&msgs[i], -1)
		}
		clear(msgs)
		l.mu.Lock()
		l.spare = msgs[:0]
		l.mu.Unlock()
	}
}

// receipts returns those for a node; nil after close.
func (b *inbox) receipts(from string) *receipts {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.peers[from]
	if of == nil && !b.closed {
		of = newReceipts(b.r, from)
		b.peers[from] = of
	}
	return of
}

// forget drops the receipts of a node; verdicts to come are told to nobody.
func (b *inbox) forget(from string) {
	b.mu.Lock()
	of := b.peers[from]
	delete(b.peers, from)
	b.mu.Unlock()
	if of != nil {
		of.close()
	}
}

// close tells the verdicts that are due.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	peers := slices.Collect(maps.Values(b.peers))
	clear(b.peers)
	b.mu.Unlock()
	for _, of := range peers {
		of.close()
	}
}
