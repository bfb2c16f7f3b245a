package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// records makes count records counted from n on, with distinct keys and values.
func records(n uint64, count int) []host.Record {
	recs := make([]host.Record, count)
	for i := range recs {
		recs[i] = host.Record{
			N:     n + uint64(i),
			Key:   fmt.Appendf(nil, "device-%d", i%7),
			Value: fmt.Appendf(nil, "value %d", n+uint64(i)),
		}
	}
	return recs
}

// write appends recs and returns the offsets they were acknowledged with, having checked that every
// record was answered once, in order, and that they lie one behind the other.
func write(t *testing.T, l Log, p int32, recs []host.Record) []int64 {
	t.Helper()
	r := newRecorder()
	l.Append(t.Context(), p, recs, r)
	return acknowledged(t, recs, r.wait(t, len(recs)))
}

// acknowledged checks the answers to recs, which nobody else's records came between.
func acknowledged(t *testing.T, recs []host.Record, acks []ack) []int64 {
	t.Helper()
	if got, want := len(acks), len(recs); got != want {
		t.Fatalf("got %d acks, want %d", got, want)
	}
	offsets := make([]int64, len(acks))
	for i, a := range acks {
		if a.Err != nil {
			t.Fatalf("record %d: %v", recs[i].N, a.Err)
		}
		if got, want := a.N, recs[i].N; got != want {
			t.Fatalf("ack %d is of record %d, want %d", i, got, want)
		}
		if i > 0 && a.Offset != offsets[i-1]+1 {
			t.Fatalf("record %d lies at %d, the one before it at %d", a.N, a.Offset, offsets[i-1])
		}
		offsets[i] = a.Offset
	}
	return offsets
}

// read returns copies of what Read shows.
func read(t *testing.T, l Log, p int32, from, to int64) []host.LogRecord {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []host.LogRecord
	if err := l.Read(ctx, p, from, to, func(r host.LogRecord) error {
		got = append(got, host.LogRecord{Offset: r.Offset, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)})
		return nil
	}); err != nil {
		t.Fatalf("read [%d,%d) of p%d: %v", from, to, p, err)
	}
	return got
}

// stored is how recs must come back from the log.
func stored(recs []host.Record, offsets []int64) []host.LogRecord {
	want := make([]host.LogRecord, len(recs))
	for i := range recs {
		want[i] = host.LogRecord{Offset: offsets[i], Key: recs[i].Key, Value: recs[i].Value}
	}
	return want
}

func expect(t *testing.T, got, want []host.LogRecord) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("records differ (-want +got):\n%s", diff)
	}
}
