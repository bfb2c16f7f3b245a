package world

import (
	"context"
	"errors"
	"fmt"

	"github.com/doppel-iot/doppel/actors/host"
)

var (
	errCut     = errors.New("no connection to the log")
	errFault   = errors.New("injected produce failure")
	errProcess = errors.New("the process is dead")
)

// topic is one partition of a topic.
type topic struct {
	recs  []stored
	start int64
	// landed is told of every record when it has landed; nil: nobody.
	landed func(offset int64, f *flight)
}

type stored struct {
	key, value []byte
	message    *message // of ingest, and when it was received
	at         int64
	gone       bool // by compaction
}

func (t *topic) end() int64 { return int64(len(t.recs)) }

// compactAll removes every record with a newer one of its key: the most that compaction may do.
func (t *topic) compactAll() {
	seen := map[string]bool{}
	for i := len(t.recs) - 1; i >= 0; i-- {
		k := string(t.recs[i].key)
		t.recs[i].gone = t.recs[i].gone || seen[k]
		seen[k] = true
	}
}

// truncate removes what is below start.
func (t *topic) truncate(start int64) { t.start = max(t.start, min(start, t.end())) }

// flight is a record on its way.
type flight struct {
	key, value []byte
	message    *message         // of ingest
	at         int64            // when that was received
	transition *host.Transition // of alerts
	done       func(offset int64, err error)

	offset int64
	err    error
}

// session is a process's connection to a topic: records on their way, in order, whose content lands and
// is acknowledged when the world says so.
type session struct {
	t      *topic
	p      *process
	queue  []*flight
	landed int // the first of queue that have met their fate
	frozen bool
}

func (s *session) send(f *flight) {
	if !s.p.dead {
		s.queue = append(s.queue, f)
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
	fates
)

// land gives the next record its fate; false: there is none.
func (s *session) land(what fate) bool {
	if s.landed == len(s.queue) || s.frozen {
		return false
	}
	f := s.queue[s.landed]
	s.landed++
	if what == fails {
		f.offset, f.err = -1, errFault
		return true
	}
	for range 1 + b2i(what == doubles) {
		f.offset = s.t.end()
		s.t.recs = append(s.t.recs, stored{key: f.key, value: f.value, message: f.message, at: f.at})
		if s.t.landed != nil {
			s.t.landed(f.offset, f)
		}
	}
	if what == deceives || what == unplaced {
		f.offset = -1
	}
	if what == deceives {
		f.err = errFault
	}
	return true
}

// failAll is what a client does with all that it holds for a partition when it gives up on one record: it
// says so at once.
func (s *session) failAll() {
	for s.land(fails) {
	}
	for s.answer() {
	}
}

// answer gives the next record that landed its acknowledgement; false: there is none.
func (s *session) answer() bool {
	if s.landed == 0 {
		return false
	}
	f := s.queue[0]
	s.queue = s.queue[1:]
	s.landed--
	f.done(f.offset, f.err)
	return true
}

// port is a topic of the log by partitions, as a process reaches it.
type port struct {
	p        *process
	sessions []*session
}

// Append implements host.Log. It never blocks: the world bounds what is sent.
func (l *port) Append(_ context.Context, part int32, recs []host.Record, acks host.Acks) {
	for i := range recs {
		n := recs[i].N
		l.sessions[part].send(&flight{key: recs[i].Key, value: recs[i].Value, done: func(offset int64, err error) {
			acks.Ack(n, offset, err)
		}})
	}
}

// Bounds implements host.Log and host.Ingest.
func (l *port) Bounds(ctx context.Context, part int32) (start, end int64, err error) {
	if err := l.p.connected(ctx); err != nil {
		return 0, 0, err
	}
	t := l.sessions[part].t
	return t.start, t.end(), nil
}

// Read implements host.Log.
func (l *port) Read(ctx context.Context, part int32, from, to int64, fn func(host.LogRecord) error) error {
	if err := l.p.connected(ctx); err != nil {
		return err
	}
	t := l.sessions[part].t
	for next := from; next < to; next++ {
		switch {
		case next < t.start:
			return fmt.Errorf("offset %d is gone, the log starts at %d", next, t.start)
		case next >= t.end():
			return fmt.Errorf("offset %d is not there yet: %w", next, errCut)
		case t.recs[next].gone:
			continue
		}
		if err := fn(host.LogRecord{Offset: next, Key: t.recs[next].key, Value: t.recs[next].value}); err != nil {
			return err
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
