package host

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
)

// store is a log of one partition, and an ingest, in memory. What is appended lands and is answered at
// once, unless the store hangs: then everything waits until it goes on.
type store struct {
	mu     sync.Mutex
	recs   []LogRecord
	msgs   []Message // of an ingest, by offset
	gone   map[int64]bool
	going  chan struct{} // closed unless it hangs
	grown  chan struct{} // closed when something is appended
	queued []func()
}

func newStore() *store {
	s := &store{gone: make(map[int64]bool), going: make(chan struct{}), grown: make(chan struct{})}
	close(s.going)
	return s
}

func (s *store) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.going = make(chan struct{})
}

func (s *store) goOn() {
	s.mu.Lock()
	queued := s.queued
	s.queued = nil
	close(s.going)
	s.mu.Unlock()
	for _, land := range queued {
		land()
	}
}

// hung is the way to wait for it; false: it does not hang.
func (s *store) hung() (<-chan struct{}, bool) {
	select {
	case <-s.going:
		return nil, false
	default:
		return s.going, true
	}
}

// Append implements Log.
func (s *store) Append(_ context.Context, _ int32, recs []Record, acks Acks) {
	land := func() {
		for _, r := range recs {
			acks.Ack(r.N, s.add(r.Key, r.Value), nil)
		}
	}
	recs = append([]Record(nil), recs...)
	s.mu.Lock()
	_, hangs := s.hung()
	if hangs {
		s.queued = append(s.queued, land)
	}
	s.mu.Unlock()
	if !hangs {
		land()
	}
}

func (s *store) add(key, value []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recs = append(s.recs, LogRecord{Offset: int64(len(s.recs)), Key: bytes.Clone(key), Value: bytes.Clone(value)})
	close(s.grown)
	s.grown = make(chan struct{})
	return int64(len(s.recs)) - 1
}

// all is what was ever appended.
func (s *store) all() []LogRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recs)
}

// compact removes every record with a newer one of its key.
func (s *store) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[string]bool)
	for i, r := range slices.Backward(s.recs) {
		key := string(r.Key)
		s.gone[int64(i)] = s.gone[int64(i)] || seen[key]
		seen[key] = true
	}
}

func (s *store) pass(ctx context.Context) error {
	s.mu.Lock()
	going, hangs := s.hung()
	s.mu.Unlock()
	if !hangs {
		return ctx.Err()
	}
	select {
	case <-going:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Bounds implements Log.
func (s *store) Bounds(ctx context.Context, _ int32) (start, end int64, err error) {
	if err := s.pass(ctx); err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, int64(len(s.recs)), nil
}

// Read implements Log.
func (s *store) Read(ctx context.Context, _ int32, from, to int64, fn func(LogRecord) error) error {
	for next := from; next < to; next++ {
		r, gone, err := s.at(ctx, next)
		if err != nil {
			return err
		}
		if gone {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) at(ctx context.Context, offset int64) (r LogRecord, gone bool, err error) {
	for {
		if err := s.pass(ctx); err != nil {
			return r, false, err
		}
		s.mu.Lock()
		if offset < int64(len(s.recs)) {
			defer s.mu.Unlock()
			return s.recs[offset], s.gone[offset], nil
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return r, false, ctx.Err()
		}
	}
}

// inlet is a store as an ingest.
type inlet struct{ *store }

func (i inlet) put(m *Message) {
	i.mu.Lock()
	i.msgs = append(i.msgs, *m)
	i.mu.Unlock()
	i.add(m.Device, nil)
}

// Follow implements Ingest.
func (i inlet) Follow(ctx context.Context, _ int32, from int64, take func([]IngestRecord) error) error {
	for next := from; ; next++ {
		if _, _, err := i.at(ctx, next); err != nil {
			return err
		}
		i.mu.Lock()
		m := i.msgs[next]
		i.mu.Unlock()
		if err := take([]IngestRecord{{Offset: next, Home: -1, Message: m}}); err != nil {
			return err
		}
	}
}

// Append implements Ingest.
func (i inlet) Append(_ context.Context, _ int32, m *Message, done func(error)) {
	i.put(m)
	go done(nil)
}

// plant is a log, a state and an ingest that several hosts share.
type plant struct {
	log, state *store
	ingest     inlet
	hosts      uint64
	set        *alert.Set // of those who ask for it
}

func newPlant() *plant { return &plant{log: newStore(), state: newStore(), ingest: inlet{newStore()}} }

// Put implements DeadLetters.
func (*plant) Put(_ context.Context, _ DeadLetter, done func(error)) { go done(nil) }

// Publish implements AlertLog.
func (*plant) Publish(_ context.Context, _ Transition, done func(error)) { go done(nil) }

// host makes one of the plant's hosts.
func (p *plant) host(tb testing.TB, change func(*Config)) *Host {
	tb.Helper()
	p.hosts++
	nonce := p.hosts << 32
	cfg := Config{
		Node: string(rune('a' + p.hosts)), Partitions: 1, Changelog: p.log, State: p.state, Ingest: p.ingest, DeadLetters: p, Alerts: p,
		CheckpointAfter: 200 * time.Millisecond,
		Clock:           func() int64 { return time.Now().UnixNano() },
		Nonce:           func() uint64 { nonce++; return nonce },
		Logger:          slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// replies counts verdicts.
type replies struct {
	mu sync.Mutex
	n  map[Verdict]int
}

// Done implements Reply.
func (r *replies) Done(tokens []uint64, v Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = make(map[Verdict]int)
	}
	r.n[v] += len(tokens)
}

func (r *replies) count(v Verdict) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n[v]
}
