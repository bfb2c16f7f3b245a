package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
)

var (
	errLost  = errors.New("connection lost")
	errFault = errors.New("injected produce failure")
)

// topic is one partition of a topic.
type topic struct {
	mu    sync.Mutex
	recs  []stored
	start int64
	grown chan struct{} // closed when a record lands
}

type stored struct {
	key, value []byte
	gone       bool // by compaction
}

func newTopic() *topic { return &topic{grown: make(chan struct{})} }

func (t *topic) append(key, value []byte) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recs = append(t.recs, stored{key: key, value: value})
	close(t.grown)
	t.grown = make(chan struct{})
	return int64(len(t.recs)) - 1
}

func (t *topic) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(len(t.recs))
}

// compactAll removes every record with a newer one of its key: the most that compaction may do.
func (t *topic) compactAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	for i := len(t.recs) - 1; i >= 0; i-- {
		k := string(t.recs[i].key)
		t.recs[i].gone = t.recs[i].gone || seen[k]
		seen[k] = true
	}
}

// truncate removes what is below start.
func (t *topic) truncate(start int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = max(t.start, min(start, int64(len(t.recs))))
}

// session is a node's connection to a topic: a queue of records on their way, in order, whose content
// lands and is acknowledged when the driver says so.
type session struct {
	t *topic
	n *node

	mu     sync.Mutex
	queue  []*flight
	landed int // the first of queue that have met their fate
}

// flight is a record on its way.
type flight struct {
	n          uint64
	key, value []byte
	acks       host.Acks
	offset     int64
	err        error
}

// Append implements host.Log. It never blocks: the driver bounds what is sent.
func (s *session) Append(_ context.Context, _ int32, recs []host.Record, acks host.Acks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n.crashed() {
		return
	}
	for _, r := range recs {
		s.queue = append(s.queue, &flight{n: r.N, key: bytes.Clone(r.Key), value: bytes.Clone(r.Value), acks: acks})
	}
}

// fate is what becomes of a record on its way.
type fate int

const (
	lands    fate = iota
	fails         // it does not land, and an error is the answer
	deceives      // it lands, and an error is the answer
	doubles       // it lands twice, the second time under another producer id, whose offset is the answer
	unplaced      // it lands, and the broker cannot say where
)

// land gives the next record its fate and returns what of it stands in the log.
func (s *session) land(f fate) (offsets []int64, r *flight) {
	s.mu.Lock()
	if s.landed == len(s.queue) {
		s.mu.Unlock()
		return nil, nil
	}
	r = s.queue[s.landed]
	s.landed++
	s.mu.Unlock()
	if f == fails {
		r.offset, r.err = -1, errFault
		return nil, r
	}
	offsets = append(offsets, s.t.append(r.key, r.value))
	if f == doubles {
		offsets = append(offsets, s.t.append(r.key, r.value))
	}
	r.offset = offsets[len(offsets)-1]
	if f == deceives || f == unplaced {
		r.offset = -1
	}
	if f == deceives {
		r.err = errFault
	}
	return offsets, r
}

// ack answers the next record that landed.
func (s *session) ack() bool {
	s.mu.Lock()
	if s.landed == 0 || s.n.crashed() {
		s.mu.Unlock()
		return false
	}
	r := s.queue[0]
	s.queue = s.queue[1:]
	s.landed--
	s.mu.Unlock()
	r.acks.Ack(r.n, r.offset, r.err)
	return true
}

// Bounds implements host.Log and host.Ingest.
func (s *session) Bounds(ctx context.Context, _ int32) (start, end int64, err error) {
	if err := s.n.pass(ctx); err != nil {
		return 0, 0, err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.t.start, int64(len(s.t.recs)), nil
}

// Read implements host.Log.
func (s *session) Read(ctx context.Context, _ int32, from, to int64, fn func(host.LogRecord) error) error {
	for next := from; next < to; next++ {
		r, err := s.get(ctx, next)
		if err != nil {
			return err
		}
		if r.gone {
			continue
		}
		if err := fn(host.LogRecord{Offset: next, Key: r.key, Value: r.value}); err != nil {
			return err
		}
	}
	return nil
}

// get waits for the record at offset.
func (s *session) get(ctx context.Context, offset int64) (stored, error) {
	for {
		if err := s.n.pass(ctx); err != nil {
			return stored{}, err
		}
		s.t.mu.Lock()
		grown, start := s.t.grown, s.t.start
		switch {
		case offset < start:
			s.t.mu.Unlock()
			return stored{}, fmt.Errorf("offset %d is gone, the log starts at %d", offset, start)
		case offset < int64(len(s.t.recs)):
			r := s.t.recs[offset]
			s.t.mu.Unlock()
			return r, nil
		}
		s.t.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return stored{}, ctx.Err()
		}
	}
}
