// Package storagetest holds what every backend of a port of actors/host must pass: one suite, run
// against each backend by its own tests.
//
// It tests what the port promises, not how fast; a backend's own files and failures (a kill, a full
// buffer, a broker that stalls) are tested beside it.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// Partitions is how many partitions a Log under test must have at least.
const Partitions = 4

// Log is a topic under test, changelog or state, and what the suite needs to reach beyond its port.
type Log struct {
	host.Log
	// Truncate removes all records of p below offset before.
	Truncate func(t *testing.T, p int32, before int64)
	// Compact removes, of the records of p, those with a newer one of the same key, except near the
	// end of the log. nil: this log is not compacted.
	Compact func(t *testing.T, p int32)
	// Truncated is in the chain of the error of a Read that begins below the start.
	Truncated error
}

// RunLog checks a log. open returns an empty one, for one subtest alone.
func RunLog(t *testing.T, open func(t *testing.T) Log) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, l Log)
	}{
		{"appends in order", appendsInOrder},
		{"keeps keys and values", keepsKeysAndValues},
		{"bounds", bounds},
		{"reads a part", readsAPart},
		{"read waits for its target", readWaits},
		{"read stops with its callback", readStops},
		{"read ends with its context", readCancelled},
		{"read below the start", readTruncated},
		{"answers with a context that ended", appendCancelled},
		{"partitions are independent", partitionsIndependent},
		{"large appends", largeAppends},
		{"reads what compaction left", readsCompacted},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// patience is how long anything may take before the suite gives up on it.
const patience = 30 * time.Second

func appendsInOrder(t *testing.T, l Log) {
	recs := records(1, 500)
	r := newRecorder()
	for i := 0; i < len(recs); i += 25 { // several in flight
		l.Append(t.Context(), 1, recs[i:i+25], r)
	}
	offsets := acknowledged(t, recs, r.wait(t, len(recs)))
	expect(t, read(t, l, 1, offsets[0], offsets[len(offsets)-1]+1), stored(recs, offsets))

	more := write(t, l, 1, records(501, 3))
	if got, want := more[0], offsets[len(offsets)-1]+1; got != want {
		t.Errorf("next append lies at %d, want %d", got, want)
	}
}

func keepsKeysAndValues(t *testing.T, l Log) {
	recs := []host.Record{
		{N: 0, Key: nil, Value: []byte("a claim has no key")},
		{N: 1, Key: []byte("d"), Value: []byte{}},
		{N: 2, Key: []byte{0, 255, 128}, Value: bytes.Repeat([]byte{0, 1, 254}, 1000)},
	}
	if l.Compact != nil {
		recs[0].Key = []byte("#floor") // there, what has no key is refused
	}
	offsets := write(t, l, 0, recs)
	got := read(t, l, 0, offsets[0], offsets[2]+1)
	want := stored(recs, offsets)
	want[1].Value = got[1].Value // an empty value may come back as nil
	expect(t, got, want)
	if len(got[1].Value) != 0 {
		t.Errorf("got value %q, want none", got[1].Value)
	}
	if recs[0].Key == nil && got[0].Key != nil {
		t.Errorf("got key %q for a claim, want nil", got[0].Key)
	}
}

func bounds(t *testing.T, l Log) {
	check := func(p int32, wantStart, wantEnd int64) {
		t.Helper()
		start, end, err := l.Bounds(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if start != wantStart || end != wantEnd {
			t.Errorf("got bounds of p%d %d and %d, want %d and %d", p, start, end, wantStart, wantEnd)
		}
	}
	check(2, 0, 0)
	offsets := write(t, l, 2, records(1, 10))
	check(2, 0, offsets[9]+1)
	check(3, 0, 0)
	l.Truncate(t, 2, offsets[4])
	check(2, offsets[4], offsets[9]+1)
}

func readsAPart(t *testing.T, l Log) {
	recs := records(1, 60)
	offsets := write(t, l, 0, recs) // one batch, most likely: both ends lie within it
	expect(t, read(t, l, 0, offsets[17], offsets[42]), stored(recs, offsets)[17:42])
	expect(t, read(t, l, 0, offsets[59], offsets[59]+1), stored(recs, offsets)[59:])
	expect(t, read(t, l, 0, offsets[20], offsets[20]), nil)
	expect(t, read(t, l, 0, offsets[20], offsets[10]), nil)
}

func readWaits(t *testing.T, l Log) {
	recs := records(1, 10)
	first := write(t, l, 3, recs[:5])
	shown := make(chan host.LogRecord, len(recs)+1)
	ended := make(chan error, 1)
	go func() {
		defer close(shown)
		ended <- l.Read(t.Context(), 3, first[0], first[0]+10, func(r host.LogRecord) error {
			shown <- host.LogRecord{Offset: r.Offset, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
			return nil
		})
	}()
	var got []host.LogRecord
	next := func() {
		select {
		case r, ok := <-shown:
			if !ok {
				t.Fatalf("read ended with %v after %d records", <-ended, len(got))
			}
			got = append(got, r)
		case <-time.After(patience):
			t.Fatalf("got %d records after %v", len(got), patience)
		}
	}
	for range 5 {
		next()
	}
	offsets := slices.Concat(first, write(t, l, 3, recs[5:]))
	for range 5 {
		next()
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("read goes on behind its target")
	}
	if r, ok := <-shown; ok {
		t.Errorf("read showed the record at %d, behind its target", r.Offset)
	}
	expect(t, got, stored(recs, offsets))
}

func readStops(t *testing.T, l Log) {
	offsets := write(t, l, 0, records(1, 20))
	enough := errors.New("enough")
	calls := 0
	err := l.Read(t.Context(), 0, offsets[0], offsets[19]+1, func(host.LogRecord) error {
		if calls++; calls == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got error %v, want %v", err, enough)
	}
	if got, want := calls, 3; got != want {
		t.Errorf("got %d calls, want %d", got, want)
	}
}

func readCancelled(t *testing.T, l Log) {
	offsets := write(t, l, 0, records(1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Read(ctx, 0, offsets[0], offsets[0]+100, func(host.LogRecord) error {
			cancel()
			return nil
		})
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	case <-time.After(patience):
		t.Error("read goes on")
	}
}

func readTruncated(t *testing.T, l Log) {
	recs := records(1, 20)
	offsets := write(t, l, 1, recs)
	l.Truncate(t, 1, offsets[8])
	err := l.Read(t.Context(), 1, offsets[7], offsets[19]+1, func(r host.LogRecord) error {
		t.Errorf("got the record at %d, want an error before any", r.Offset)
		return nil
	})
	if !errors.Is(err, l.Truncated) {
		t.Errorf("got error %v, want %v", err, l.Truncated)
	}
	expect(t, read(t, l, 1, offsets[8], offsets[19]+1), stored(recs, offsets)[8:])
}

func appendCancelled(t *testing.T, l Log) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	recs := records(1, 10)
	r := newRecorder()
	l.Append(ctx, 0, recs, r)
	acks := r.wait(t, len(recs))
	for i, a := range acks {
		if got, want := a.N, recs[i].N; got != want {
			t.Errorf("ack %d is of record %d, want %d", i, got, want)
		}
		if a.Err == nil {
			t.Errorf("record %d was taken at %d after its context ended", a.N, a.Offset)
		}
	}
	_, end, err := l.Bounds(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	offsets := write(t, l, 0, records(1, 1))
	if got := offsets[0]; got != end {
		t.Errorf("the next record lies at %d, want %d", got, end)
	}
	if got, want := len(r.wait(t, 0)), len(recs); got != want {
		t.Errorf("got %d acks, want %d", got, want)
	}
}

func partitionsIndependent(t *testing.T, l Log) {
	const perPartition, step = 2000, 40
	var wg sync.WaitGroup
	for p := range int32(Partitions) {
		wg.Go(func() {
			recs := records(uint64(p)*1_000_000+1, perPartition)
			r := newRecorder()
			for i := 0; i < len(recs); i += step {
				l.Append(t.Context(), p, recs[i:i+step], r)
			}
			acks := r.wait(t, len(recs))
			for i, a := range acks {
				if a.Err != nil || a.N != recs[i].N || a.Offset != int64(i) {
					t.Errorf("p%d: got ack %+v at place %d, want of record %d", p, a, i, recs[i].N)
					return
				}
			}
			n := 0
			if err := l.Read(t.Context(), p, 0, perPartition, func(r host.LogRecord) error {
				if r.Offset != int64(n) || !bytes.Equal(r.Value, recs[n].Value) {
					return fmt.Errorf("got %q at %d, want %q at %d", r.Value, r.Offset, recs[n].Value, n)
				}
				n++
				return nil
			}); err != nil {
				t.Errorf("p%d: %v", p, err)
			}
			if n != perPartition {
				t.Errorf("p%d: got %d records, want %d", p, n, perPartition)
			}
		})
	}
	wg.Wait()
}

func largeAppends(t *testing.T, l Log) {
	recs := records(1, 20_000)
	for i := range recs {
		recs[i].Value = fmt.Appendf(nil, "%d %0200d", recs[i].N, i)
	}
	recs[777].Value = bytes.Repeat([]byte("large "), 80_000)
	offsets := write(t, l, 2, recs)
	n := 0
	if err := l.Read(t.Context(), 2, offsets[0], offsets[len(offsets)-1]+1, func(r host.LogRecord) error {
		if r.Offset != offsets[n] || !bytes.Equal(r.Value, recs[n].Value) {
			return fmt.Errorf("got %d bytes at %d, want %d at %d", len(r.Value), r.Offset, len(recs[n].Value), offsets[n])
		}
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := n, len(recs); got != want {
		t.Errorf("got %d records, want %d", got, want)
	}
}

// readsCompacted: offsets without a record are passed over, at either end of what is asked for too.
func readsCompacted(t *testing.T, l Log) {
	if l.Compact == nil {
		return // nothing is ever missing in between
	}
	recs := records(1, 60)
	for i := range recs {
		recs[i].Key = fmt.Appendf(nil, "device-%d", i%3)
	}
	var offsets []int64
	for i := 0; i < len(recs); i += 6 { // several batches, some of which go as a whole
		offsets = append(offsets, write(t, l, 1, recs[i:i+6])...)
	}
	l.Compact(t, 1)
	start, end, err := l.Bounds(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if last := offsets[len(offsets)-1]; end <= last {
		t.Fatalf("got end %d with a record at %d", end, last)
	}
	left := read(t, l, 1, start, end)
	newest := map[string]host.LogRecord{}
	for i, r := range left {
		if i > 0 && r.Offset <= left[i-1].Offset {
			t.Errorf("got offset %d behind %d", r.Offset, left[i-1].Offset)
		}
		newest[string(r.Key)] = r
	}
	for _, want := range stored(recs, offsets)[len(recs)-3:] {
		got := newest[string(want.Key)]
		if got.Offset < want.Offset || got.Offset == want.Offset && !bytes.Equal(got.Value, want.Value) {
			t.Errorf("newest of %s: got %q at %d, want %q at %d", want.Key, got.Value, got.Offset, want.Value, want.Offset)
		}
	}
	if got, limit := len(left), len(recs)/2; got > limit {
		t.Fatalf("got %d records of %d after compaction, want at most %d", got, len(recs), limit)
	}
	for from := start; from <= end; from += 7 {
		for to := from; to <= end; to += 5 {
			var want []host.LogRecord
			for _, r := range left {
				if from <= r.Offset && r.Offset < to {
					want = append(want, r)
				}
			}
			expect(t, read(t, l, 1, from, to), want)
		}
	}
}
