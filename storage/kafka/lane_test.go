package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// journal is a host.Acks that keeps what it is told.
type journal struct {
	mu  sync.Mutex
	got []answer
}

type answer struct {
	n      uint64
	offset int64
	err    error
}

func (j *journal) Ack(n uint64, offset int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.got = append(j.got, answer{n, offset, err})
}

func (j *journal) answers() []answer {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.got)
}

func (j *journal) counts() []uint64 {
	var ns []uint64
	for _, a := range j.answers() {
		ns = append(ns, a.n)
	}
	return ns
}

func numbered(from, count uint64) []host.Record {
	recs := make([]host.Record, count)
	for i := range recs {
		recs[i] = host.Record{N: from + uint64(i), Value: []byte("v")}
	}
	return recs
}

func slots(first *slot, count int) []*slot {
	ss := []*slot{first}
	for len(ss) < count {
		ss = append(ss, ss[len(ss)-1].next)
	}
	return ss
}

// Whatever the order in which answers come in, they go out in the order of Append.
func TestLaneAnswersInOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}, {1, 2, 3, 0, 4}} {
		ln := &lane{room: make(chan struct{}, 1)}
		j := &journal{}
		ss := slots(ln.queue(numbered(1, 5), j), 5)
		answered := make([]bool, 5)
		for _, i := range order {
			ln.answer(ss[i], int64(100+i), nil)
			answered[i] = true
			want := 0
			for want < 5 && answered[want] {
				want++
			}
			if got := len(j.answers()); got != want {
				t.Fatalf("order %v: got %d answers after %d, want %d", order, got, i, want)
			}
		}
		for i, a := range j.answers() {
			if want := (answer{uint64(i + 1), int64(100 + i), nil}); a != want {
				t.Errorf("order %v: got answer %+v, want %+v", order, a, want)
			}
		}
		if got := ln.unanswered; got != 0 {
			t.Errorf("order %v: %d records unanswered", order, got)
		}
	}
}

// A refused batch is answered behind the records in flight, and not on the stack of its Append.
func TestLaneRefusesBehindWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &lane{room: make(chan struct{}, 1)}
		j := &journal{}
		ss := slots(ln.queue(numbered(1, 2), j), 2)
		refusal := errors.New("no")
		ln.refuse(numbered(3, 2), j, refusal)
		ln.answer(ss[1], 11, nil)
		synctest.Wait()
		if got := j.answers(); len(got) != 0 {
			t.Fatalf("got answers %v before the first record's", got)
		}
		ln.answer(ss[0], 10, nil)
		synctest.Wait()
		want := []answer{{1, 10, nil}, {2, 11, nil}, {3, -1, refusal}, {4, -1, refusal}}
		if got := j.answers(); !slices.Equal(got, want) {
			t.Errorf("got answers %v, want %v", got, want)
		}
		ln.refuse(numbered(5, 1), j, refusal)
		synctest.Wait()
		if diff := cmp.Diff([]uint64{1, 2, 3, 4, 5}, j.counts()); diff != "" {
			t.Errorf("answered (-want +got):\n%s", diff)
		}
	})
}

// A full lane blocks, and lets one Append in for each batch answered.
func TestLaneBlocksWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &lane{room: make(chan struct{}, 1)}
		j := &journal{}
		closed := make(chan struct{})
		ss := slots(ln.queue(numbered(1, 4), j), 4)
		var entered, cancelled, refused sync.WaitGroup
		in := make(chan struct{}, 10)
		for range 3 {
			entered.Go(func() {
				if err := ln.enter(t.Context(), 4, closed); err != nil {
					t.Error(err)
				}
				in <- struct{}{}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancelled.Go(func() {
			if err := ln.enter(ctx, 4, closed); !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		if got := len(in); got != 0 {
			t.Fatalf("%d entered a full lane", got)
		}
		cancel()
		cancelled.Wait()
		ln.answer(ss[0], 0, nil)
		entered.Wait() // each lets the next look: none took the room
		ln.queue(numbered(5, 1), j)
		refused.Go(func() {
			if err := ln.enter(t.Context(), 4, closed); !errors.Is(err, ErrClosed) {
				t.Errorf("got error %v, want %v", err, ErrClosed)
			}
		})
		synctest.Wait()
		close(closed)
		refused.Wait()
	})
}

// The client reports a duplicate it cannot place without an error and with offset -1.
func TestChangelogPassesUnknownOffsets(t *testing.T) {
	ln := &lane{room: make(chan struct{}, 1)}
	j := &journal{}
	l := &Log{}
	ss := slots(ln.queue(numbered(1, 2), j), 2)
	l.answered(&kgo.Record{Context: ss[0], Offset: -1}, nil)
	l.answered(&kgo.Record{Context: ss[1], Offset: 7}, kgo.ErrRecordTimeout)
	got := j.answers()
	if want := (answer{1, -1, nil}); got[0] != want {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if got[1].offset != -1 || !errors.Is(got[1].err, kgo.ErrRecordTimeout) {
		t.Errorf("got %+v, want offset -1 and %v", got[1], kgo.ErrRecordTimeout)
	}
}
