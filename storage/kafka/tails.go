package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	t.closed = true
	done := t.done
	if done != nil {
		t.wake()
	}
	t.mu.Unlock()
	if done != nil {
		<-done
	}
}

// do has f run between two polls; false: t is closed.
func (t *tails) do(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.todo = append(t.todo, f)
	t.wake()
	return true
}

func (t *tails) run() {
	defer close(t.done)
	for {
		ctx, cancel := context.WithCancel(context.Background())
		t.mu.Lock()
		todo, closed := t.todo, t.closed
		t.todo, t.wake = nil, cancel
		t.mu.Unlock()
		for _, f := range todo {
			f()
		}
		if closed {
			cancel()
			break
		}
		fs := t.cl.PollFetches(ctx)
		cancel()
		fs.EachPartition(func(tp kgo.FetchTopicPartition) {
			if f := t.followers[tp.Partition]; f != nil && tp.Topic == t.topic {
				t.give(f, tp.Records, tp.Err)
			}
		})
	}
	closeConsumer(t.cl, t.topic, slices.Collect(maps.Keys(t.followers)))
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
	if err := t.open(); err != nil { //nolint:contextcheck // the consumer outlives who follows first
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
	if !t.do(func() {
		t.stop(f)
		t.followers[f.p] = f
		t.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{t.topic: {f.p: kgo.NewOffset().At(f.position())}})
	}) {
		f.fail(ErrClosed)
	}
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
