package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	tailPartition = 1 << 20 // bytes of a partition in one fetch
	tailFetch     = 8 << 20 // bytes of one fetch
	// tailQueue is how many bytes wait for a busy partition before it is fetched no more.
	tailQueue = 1 << 20
	// tailWait bounds a fetch while nothing comes, and so how long a partition that is added or goes
	// on waits for the fetch under way.
	tailWait = 100 * time.Millisecond
	// endPatience is how long an end below the position asked for is put down to a leader just made.
	endPatience = 10 * time.Second
)

// tails follows partitions of one topic with one consumer, whose fetches cover all of them.
//
// One goroutine, run, polls the consumer and alone changes what it consumes, between polls: so what a
// poll returned never belongs to an earlier assignment of the partition.
type tails struct {
	cfg   *Config
	topic string
	slots []chan struct{} // by partition: taken by its follower

	mu     sync.Mutex
	cl     *kgo.Client // nil: nobody has followed yet
	closed bool
	todo   []func()           // for run
	wake   context.CancelFunc // ends the poll under way
	done   chan struct{}      // closed when run has ended

	followers map[int32]*follower // of run alone
}

func newTails(cfg *Config, topic string) *tails {
	t := &tails{cfg: cfg, topic: topic, slots: make([]chan struct{}, cfg.Partitions), followers: map[int32]*follower{}}
	for p := range t.slots {
		t.slots[p] = make(chan struct{}, 1)
	}
	return t
}

// open starts the consumer, once.
func (t *tails) open() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	if t.cl != nil {
		return nil
	}
	cl, err := kgo.NewClient(append(t.cfg.connection(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(tailWait),
		kgo.FetchMaxBytes(tailFetch),
		kgo.FetchMaxPartitionBytes(tailPartition))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	t.cl, t.wake, t.done = cl, func() {}, make(chan struct{})
	go t.run()
	return nil
}

// close ends all following with ErrClosed.
func (t *tails) close() {
	t.mu.Lock()
	cl, done := t.cl, t.done
	t.closed = true
	t.mu.Unlock()
	if cl != nil {
		cl.Close()
		<-done
	}
}

// do has f run between two polls. It is not run any more once t is closed.
func (t *tails) do(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.todo = append(t.todo, f)
	t.wake()
}

func (t *tails) run() {
	defer close(t.done)
	for {
		ctx, cancel := context.WithCancel(context.Background())
		t.mu.Lock()
		todo := t.todo
		t.todo, t.wake = nil, cancel
		t.mu.Unlock()
		for _, f := range todo {
			f()
		}
		fs := t.cl.PollFetches(ctx)
		cancel()
		if fs.IsClientClosed() {
			break
		}
		fs.EachPartition(func(tp kgo.FetchTopicPartition) {
			if f := t.followers[tp.Partition]; f != nil && tp.Topic == t.topic {
				t.give(f, tp.Records, tp.Err)
			}
		})
	}
	// Nobody adds a follower any more: who starts now is told by fail.
	t.mu.Lock()
	todo := t.todo
	t.todo = nil
	t.closed = true
	t.mu.Unlock()
	for _, f := range todo {
		f()
	}
	for _, f := range t.followers {
		f.fail(ErrClosed)
	}
}

// give queues what was fetched for f, in run.
func (t *tails) give(f *follower, rs []*kgo.Record, err error) {
	if size := f.push(rs); size > tailQueue && !f.paused {
		f.paused = true
		t.cl.PauseFetchPartitions(map[string][]int32{t.topic: {f.p}})
	}
	switch {
	case err == nil || errors.Is(err, context.Canceled):
	case errors.Is(err, kerr.OffsetOutOfRange):
		// Too low or too high: who follows looks.
		f.fail(kerr.OffsetNotAvailable)
	default:
		f.fail(err)
	}
}

// join waits until p is followed by nobody else. The follower is given nothing until start.
func (t *tails) join(ctx context.Context, p int32, from int64) (*follower, error) {
	if err := t.open(); err != nil {
		return nil, err
	}
	select {
	case t.slots[p] <- struct{}{}:
		return &follower{p: p, at: from, ready: make(chan struct{}, 1)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.done:
		return nil, ErrClosed
	}
}

// start has f's partition consumed from its position on, again after a failure.
func (t *tails) start(f *follower) {
	f.reset()
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		f.fail(ErrClosed)
		return
	}
	t.do(func() {
		t.stop(f)
		t.followers[f.p] = f
		t.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{t.topic: {f.p: kgo.NewOffset().At(f.position())}})
	})
}

// stop ends the consuming of f's partition, in run.
func (t *tails) stop(f *follower) {
	if t.followers[f.p] != f {
		return
	}
	delete(t.followers, f.p)
	f.paused = false
	t.cl.RemoveConsumePartitions(map[string][]int32{t.topic: {f.p}})
	t.cl.ResumeFetchPartitions(map[string][]int32{t.topic: {f.p}})
}

// leave ends f.
func (t *tails) leave(f *follower) {
	t.do(func() { t.stop(f) })
	<-t.slots[f.p]
}

// taken notes that rs are handled.
func (t *tails) taken(f *follower, rs []*kgo.Record) {
	if f.shrink(rs) {
		t.do(func() {
			if t.followers[f.p] == f && f.paused {
				f.paused = false
				t.cl.ResumeFetchPartitions(map[string][]int32{t.topic: {f.p}})
			}
		})
	}
}

// follower is what was fetched of one partition and waits to be taken.
type follower struct {
	p      int32
	paused bool          // of tails.run alone
	ready  chan struct{} // the queue or err is worth a look

	mu    sync.Mutex
	at    int64 // offset behind what was queued
	queue [][]*kgo.Record
	bytes int // queued, and taken but not handled
	err   error
}

// ShortError says that a log ends before a position that was stored for it: it lost its tail, or is
// another one. It is an ErrTruncated.
type ShortError struct {
	Partition int32
	From, End int64
}

// Error implements error.
func (e *ShortError) Error() string {
	return fmt.Sprintf("p%d: offset %d is gone, the log ends at %d", e.Partition, e.From, e.End)
}

// Is makes errors.Is(err, ErrTruncated) true.
func (e *ShortError) Is(target error) bool { return target == ErrTruncated }

func (f *follower) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// push queues rs and returns the bytes waiting.
func (f *follower) push(rs []*kgo.Record) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(rs) > 0 && rs[0].Offset < f.at {
		rs = rs[1:]
	}
	if len(rs) == 0 || f.err != nil {
		return f.bytes
	}
	f.at = rs[len(rs)-1].Offset + 1
	f.queue = append(f.queue, rs)
	f.bytes += weigh(rs)
	f.signal()
	return f.bytes
}

// fail ends f behind what is queued.
func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.signal()
	}
}

// reset takes back a failure. The queue is empty then.
func (f *follower) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = nil
}

func (f *follower) signal() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// next waits for records, or for what ended them.
func (f *follower) next(ctx context.Context) ([]*kgo.Record, error) {
	for {
		f.mu.Lock()
		if len(f.queue) > 0 {
			rs := f.queue[0]
			f.queue = f.queue[1:]
			f.mu.Unlock()
			return rs, nil
		}
		err := f.err
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// shrink takes rs off the bytes waiting, and returns true when there is room again.
func (f *follower) shrink(rs []*kgo.Record) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.bytes
	f.bytes -= weigh(rs)
	return before > tailQueue/2 && f.bytes <= tailQueue/2
}

// weigh is about the memory of rs.
func weigh(rs []*kgo.Record) int {
	n := 0
	for _, r := range rs {
		n += len(r.Key) + len(r.Value) + 256
	}
	return n
}
