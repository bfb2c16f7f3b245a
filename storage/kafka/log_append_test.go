package kafka

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/doppel-iot/doppel/actors/host"
)

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if !time.Now().Before(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// stalled opens a log whose broker takes produce requests and answers none until release is called.
func stalled(t *testing.T, inFlight int) (l *Log, release func()) {
	t.Helper()
	e := embedded(t, "")
	l = open(t, Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 2, InFlight: inFlight, Linger: -1}).Changelog()
	held := make(chan struct{})
	e.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		e.cluster.SleepControl(func() { <-held })
		return nil, nil, false
	})
	return l, func() { close(held) }
}

func TestAppendBlocksAndGivesUp(t *testing.T) {
	l, release := stalled(t, 10)
	j := &journal{}
	l.Append(t.Context(), 0, numbered(1, 10), j)

	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	go func() {
		l.Append(ctx, 0, numbered(11, 5), j)
		close(returned)
	}()
	waiting := func() bool {
		l.lanes[0].mu.Lock()
		defer l.lanes[0].mu.Unlock()
		return l.lanes[0].waiting == 1
	}
	until(t, "the second append blocks", waiting)
	l.Append(t.Context(), 1, numbered(1, 5), &journal{}) // another partition has its own room
	cancel()
	<-returned
	if got := j.counts(); len(got) != 0 {
		t.Fatalf("got answers %v before the records in flight", got)
	}
	release()
	until(t, "all are answered", func() bool { return len(j.answers()) == 15 })
	for i, a := range j.answers() {
		if a.n != uint64(i+1) {
			t.Fatalf("answer %d is of record %d", i, a.n)
		}
		switch {
		case i < 10 && (a.err != nil || a.offset != int64(i)):
			t.Errorf("got %+v, want offset %d", a, i)
		case i >= 10 && (!errors.Is(a.err, context.Canceled) || a.offset != -1):
			t.Errorf("got %+v, want %v", a, context.Canceled)
		}
	}
	if _, end, err := l.Bounds(t.Context(), 0); err != nil || end != 10 {
		t.Errorf("got end %d and error %v, want 10", end, err)
	}
}

func TestAppendGoesOnWhenThereIsRoom(t *testing.T) {
	l, release := stalled(t, 10)
	j := &journal{}
	done := make(chan struct{})
	go func() {
		for i := range uint64(20) {
			l.Append(t.Context(), 0, numbered(i*10+1, 10), j)
		}
		close(done)
	}()
	release()
	<-done
	until(t, "all are answered", func() bool { return len(j.answers()) == 200 })
	for i, a := range j.answers() {
		if want := (answer{uint64(i + 1), int64(i), nil}); a != want {
			t.Fatalf("got %+v, want %+v", a, want)
		}
	}
}

func TestCloseAnswersEverything(t *testing.T) {
	l, release := stalled(t, 10)
	defer release()
	j := &journal{}
	l.Append(t.Context(), 0, numbered(1, 10), j)
	go l.Append(t.Context(), 0, numbered(11, 5), j)
	until(t, "the second append blocks", func() bool {
		l.lanes[0].mu.Lock()
		defer l.lanes[0].mu.Unlock()
		return l.lanes[0].waiting == 1
	})
	if err := l.c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "all are answered", func() bool { return len(j.answers()) == 15 })
	l.Append(t.Context(), 0, numbered(16, 2), j)
	until(t, "late records are answered", func() bool { return len(j.answers()) == 17 })
	for i, a := range j.answers() {
		if a.n != uint64(i+1) || a.err == nil {
			t.Errorf("got answer %+v at place %d, want an error for record %d", a, i, i+1)
		}
	}
	if err := l.Read(t.Context(), 0, 0, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("read: got error %v, want %v", err, ErrClosed)
	}
}

// A record that does not fit is refused in its turn; those behind it are written, a hole in the count
// that the owner must see (protocol.md, T6).
func TestAppendRefusesWhatIsTooLarge(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			l := open(t, b.config(t)).Changelog()
			recs := numbered(1, 40)
			recs[20].Value = bytes.Repeat([]byte{1}, largestEvent)
			j := &journal{}
			l.Append(t.Context(), 0, recs, j)
			until(t, "all are answered", func() bool { return len(j.answers()) == len(recs) })
			want := make([]uint64, len(recs))
			for i := range want {
				want[i] = uint64(i + 1)
			}
			if diff := cmp.Diff(want, j.counts()); diff != "" {
				t.Errorf("order of answers (-want +got):\n%s", diff)
			}
			for i, a := range j.answers() {
				if got, want := a.err != nil, i == 20; got != want {
					t.Errorf("record %d: got error %v", a.n, a.err)
				}
			}
			if err := j.answers()[20].err; !errors.Is(err, kerr.MessageTooLarge) {
				t.Errorf("got error %v, want %v", err, kerr.MessageTooLarge)
			}
		})
	}
}

// Steady state: no allocation for each record. The client makes a few for each batch.
func TestAppendDoesNotAllocatePerRecord(t *testing.T) {
	l := open(t, backends()[0].config(t)).Changelog()
	recs := fleet(1000)
	run := func() {
		c := &counter{want: int64(len(recs)), all: make(chan struct{})}
		l.Append(t.Context(), 0, recs, c)
		<-c.all
	}
	for range 20 {
		run()
	}
	// The broker is in the same process and makes some as well.
	if got, limit := testing.AllocsPerRun(50, run), float64(len(recs))/4; got > limit {
		t.Errorf("got %.0f allocations for %d records, want fewer than %.0f", got, len(recs), limit)
	}
}

// A read goes on over a broker that goes away and comes back.
func TestReadOutlastsRestart(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	addr := e.Addr()
	l := open(t, Config{Brokers: []string{addr}, Embedded: true, Partitions: 1}).Changelog()
	j := &journal{}
	l.Append(t.Context(), 0, numbered(1, 5), j)
	until(t, "the first are written", func() bool { return len(j.answers()) == 5 })

	var got []int64
	fifth := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- l.Read(t.Context(), 0, 0, 10, func(r host.LogRecord) error {
			if got = append(got, r.Offset); len(got) == 5 {
				close(fifth)
			}
			return nil
		})
	}()
	<-fifth
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	l.Append(t.Context(), 0, numbered(6, 5), j) // waits for the broker to come back
	e, err = OpenEmbedded(EmbeddedConfig{Addr: addr, DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("read did not end")
	}
	if want := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("got offsets %v, want %v", got, want)
	}
}
