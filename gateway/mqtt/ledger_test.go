package mqtt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/host"
)

// wire is a connection that records what is written to it.
type wire struct {
	mu  sync.Mutex
	buf bytes.Buffer
	err error
	// stuck, if not nil, holds writes until it is closed.
	stuck  chan struct{}
	closed bool
}

func (w *wire) Write(p []byte) (int, error) {
	if w.stuck != nil {
		<-w.stuck
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	return w.buf.Write(p)
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return nil
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// acked are the packet identifiers acknowledged so far.
func (w *wire) acked() []uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []uint16
	for b := w.buf.Bytes(); len(b) > 0; b = b[pubackLen:] {
		ids = append(ids, binary.BigEndian.Uint16(b[2:]))
	}
	return ids
}

// pending reads off the acknowledgements that are due, in place of the writer.
func (l *ledger) pending() []uint16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []uint16
	for b := l.acks; len(b) > 0; b = b[pubackLen:] {
		ids = append(ids, binary.BigEndian.Uint16(b[2:]))
	}
	l.acks = l.acks[:0]
	return ids
}

// TestLedgerModel compares the ledger with a list: whatever the order of verdicts and however often
// the connection changes, acknowledged is exactly the longest released prefix of this connection.
func TestLedgerModel(t *testing.T) {
	type entry struct {
		token    uint64
		id       uint16
		released bool
	}
	rapid.Check(t, func(t *rapid.T) {
		const limit = 8
		l := newLedger(limit, defaultHeldBytes, &Stats{}, Observer{})
		var w *wire
		var held, old []entry
		nextID := uint16(1)
		connect := func(*rapid.T) {
			w = &wire{}
			l.reset(w)
			old = append(old, held...)
			held = nil
		}
		connect(t)
		settle := func(e *entry, v host.Verdict) {
			l.Done([]uint64{e.token}, v)
			if v == host.Released {
				e.released = true
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"connect": connect,
			"push": func(t *rapid.T) {
				n := rapid.IntRange(1, 4).Draw(t, "messages")
				if len(held) == limit {
					t.Skip("full, would wait")
				}
				msgs, ids := make([]host.Message, n), make([]uint16, n)
				for i := range ids {
					ids[i] = nextID
					nextID = nextID%65535 + 1
				}
				if rapid.Bool().Draw(t, "qos 0") {
					clear(ids)
				}
				got, err := l.push(w, msgs, ids)
				if want := min(n, limit-len(held)); err != nil || got != want {
					t.Fatalf("pushed %d, %v, want %d", got, err, want)
				}
				for i := range got {
					held = append(held, entry{msgs[i].Token, ids[i], false})
				}
			},
			"verdict": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				e := &held[rapid.IntRange(0, len(held)-1).Draw(t, "which")]
				settle(e, rapid.SampledFrom([]host.Verdict{host.Released, host.Released, host.Busy, host.Failed}).Draw(t, "verdict"))
			},
			"stale": func(t *rapid.T) {
				if len(old) == 0 {
					t.Skip("no earlier connection")
				}
				l.Done([]uint64{old[rapid.IntRange(0, len(old)-1).Draw(t, "which")].token}, host.Released)
			},
			"": func(t *rapid.T) {
				var want []uint16
				n := 0
				for ; n < len(held) && held[n].released; n++ {
					if held[n].id != 0 {
						want = append(want, held[n].id)
					}
				}
				old = append(old, held[:n]...)
				held = held[n:]
				if got := l.pending(); !equal(got, want) {
					t.Fatalf("acknowledged %v, want %v", got, want)
				}
				if got := l.held.len(); got != len(held) {
					t.Fatalf("holds %d, want %d", got, len(held))
				}
				if got := l.stats.Unacked.Load(); got != int64(len(held)) {
					t.Fatalf("gauge %d, want %d", got, len(held))
				}
			},
		})
	})
}

func equal(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// The limit counts acknowledgements that the broker does not read as well.
func TestLedgerCountsUnwrittenAcknowledgements(t *testing.T) {
	l := newLedger(4, defaultHeldBytes, &Stats{}, Observer{})
	w := &wire{stuck: make(chan struct{})}
	l.reset(w)
	stop := start(t, func(ctx context.Context) error { l.writeAcks(ctx); return nil })
	msgs := make([]host.Message, 4)
	if n, err := l.push(w, msgs, []uint16{1, 2, 3, 4}); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	for i := range msgs {
		l.Done([]uint64{msgs[i].Token}, host.Released)
	}
	pushed := make(chan error, 1)
	go func() {
		_, err := l.push(w, msgs, []uint16{5, 6, 7, 8})
		pushed <- err
	}()
	never(t, "room while nothing is written", 100*time.Millisecond, func() bool { return len(pushed) > 0 })
	close(w.stuck)
	if err := <-pushed; err != nil {
		t.Error(err)
	}
	eventually(t, "acknowledgements", func() bool { return equal(w.acked(), []uint16{1, 2, 3, 4}) })
	stop()
}

func TestLedgerReleasesAWaitingReaderWithItsConnection(t *testing.T) {
	l := newLedger(1, defaultHeldBytes, &Stats{}, Observer{})
	w := &wire{}
	l.reset(w)
	if err := l.pushDone(&wire{}, 1, 0); !errors.Is(err, errConnectionGone) {
		t.Errorf("pushed by another connection: %v", err)
	}
	msgs := make([]host.Message, 1)
	if _, err := l.push(w, msgs, []uint16{1}); err != nil {
		t.Fatal(err)
	}
	pushed := make(chan error, 1)
	go func() {
		_, err := l.push(w, msgs, []uint16{2})
		pushed <- err
	}()
	l.reset(nil)
	if err := <-pushed; !errors.Is(err, errConnectionGone) {
		t.Errorf("push on a lost connection: %v, want %v", err, errConnectionGone)
	}
}

func TestLedgerClosesAConnectionItCannotWriteTo(t *testing.T) {
	l := newLedger(1, defaultHeldBytes, &Stats{}, Observer{})
	w := &wire{err: io.ErrClosedPipe}
	l.reset(w)
	stop := start(t, func(ctx context.Context) error { l.writeAcks(ctx); return nil })
	defer stop()
	if err := l.pushDone(w, 1, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connection closed", w.isClosed)
}

// An inlet that fails without a verdict gets everything again.
func TestIntakeDeliversAgainWhatWasNotTaken(t *testing.T) {
	stats := &Stats{}
	l := newLedger(100, defaultHeldBytes, stats, Observer{})
	w := &wire{}
	l.reset(w)
	o := &faltering{owner: newOwner(releaseAll), fails: 3}
	s := &sink{inlet: o, topics: newTopics("devices"), stats: stats, log: slog.New(slog.DiscardHandler)}
	stop := start(t, func(ctx context.Context) error { l.retry(ctx, s); return nil })
	defer stop()
	in := &intake{sink: s, ledger: l, w: w}
	for id := range uint16(10) {
		p := &publish{topic: []byte("devices/a/telemetry"), payload: []byte{byte(id)}, qos: 1, id: id + 1}
		if mine, err := in.take(t.Context(), p, 1); !mine || err != nil {
			t.Fatal(mine, err)
		}
	}
	if err := in.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all released", func() bool { return stats.Unacked.Load() == 0 })
	if got := l.pending(); !equal(got, []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {
		t.Errorf("acknowledged %v", got)
	}
}

type faltering struct {
	*owner
	mu    sync.Mutex
	fails int
}

func (f *faltering) Deliver(ctx context.Context, msgs []host.Message) error {
	f.mu.Lock()
	f.fails--
	fail := f.fails >= 0
	f.mu.Unlock()
	if fail {
		return errors.New("not taken")
	}
	return f.owner.Deliver(ctx, msgs)
}
