package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrDiskFull is in the chain of an Embedded's error while its disk has no room for more records.
var ErrDiskFull = errors.New("disk is full")

// diskGuard refuses records before the disk is full, with an error that producers wait out: theirs
// stay unacknowledged and are written when there is room.
//
// The broker must never find the disk full itself. It notes the sequence number of a batch before it
// writes it; if the write then fails, and the producer asks again because the answer was lost, the
// broker takes the batch for a duplicate and acknowledges what is nowhere.
//
// Checkpoints may use half of what is kept free: they are what lets the log be trimmed. So may the one
// record that a node writes when it starts.
type diskGuard struct {
	dir string
	log *slog.Logger
	ask func(dir string) (space, error)

	mu     sync.Mutex
	broken error     // what the broker last failed to write
	when   time.Time // and when
	wants  int64     // bytes of the request last refused; 0: the last one was not

	// Of the broker's goroutine alone.
	req  kmsg.Request // the last one looked at
	tier int          // of that one
}

// How full the disk would be behind a request.
const (
	roomy    = iota
	full     // for all but checkpoints and nodes
	overfull // for all
)

// brokenFor is how long a failed write is remembered.
const brokenFor = 10 * time.Second

// faults are what the broker checks each request to produce against.
func (g *diskGuard) faults(prefix string) []kfake.Fault {
	n := topicNames(prefix)
	produce := []kmsg.Key{kmsg.Produce}
	fs := []kfake.Fault{{
		Keys: produce, Count: -1, Err: kerr.KafkaStorageError,
		When: func(r kmsg.Request) bool { return g.look(r) >= overfull },
	}}
	for _, topic := range []string{n.Ingest, n.Telemetry, n.Alerts, n.DLQ, n.Rules} {
		fs = append(fs, kfake.Fault{
			Keys: produce, Topic: topic, Count: -1, Err: kerr.KafkaStorageError,
			When: func(r kmsg.Request) bool { return g.look(r) >= full },
		})
	}
	return fs
}

// look says how full the disk would be behind r. It is called for each partition in r.
func (g *diskGuard) look(r kmsg.Request) int {
	if r == g.req {
		return g.tier
	}
	before := g.tier
	g.req, g.tier = r, roomy
	s, err := g.ask(g.dir)
	if err != nil {
		g.tier = overfull
		g.log.Error("embedded log takes no records", "error", err)
		return g.tier
	}
	need := size(r)
	left, reserve := s.free-need, s.reserve()
	switch {
	case left < reserve/2:
		g.tier = overfull
	case left < reserve:
		g.tier = full
	}
	if g.tier == roomy {
		need = 0
	}
	g.mu.Lock()
	g.wants = need
	g.mu.Unlock()
	switch {
	case before == roomy && g.tier != roomy:
		g.log.Error("disk is full, embedded log takes no records", "free_bytes", s.free, "reserve_bytes", reserve)
	case before != roomy && g.tier == roomy:
		g.log.Info("disk has room again, embedded log takes records", "free_bytes", s.free)
	}
	return g.tier
}

// size is about what r takes on disk.
func size(r kmsg.Request) int64 {
	p, ok := r.(*kmsg.ProduceRequest)
	if !ok {
		return 0
	}
	n := int64(0)
	for i := range p.Topics {
		for j := range p.Topics[i].Partitions {
			n += int64(len(p.Topics[i].Partitions[j].Records)) + indexEntry
		}
	}
	return n
}

// failed notes that the broker could not write.
func (g *diskGuard) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken, g.when = err, time.Now()
}

// err is nil while records are taken.
func (g *diskGuard) err() error {
	g.mu.Lock()
	broken, when, wants := g.broken, g.when, g.wants
	g.mu.Unlock()
	if broken != nil && time.Since(when) < brokenFor {
		return broken
	}
	s, err := g.ask(g.dir)
	if err != nil {
		return err
	}
	if reserve := s.reserve(); s.free < reserve+wants {
		return fmt.Errorf("%w: %s has %d bytes free, of which %d are kept free", ErrDiskFull, g.dir, s.free, reserve)
	}
	return nil
}
