package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// bounded opens a log that may have 8 MiB, in segments of 1 MiB.
func bounded(t *testing.T, dir string) (*Client, *Embedded) {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg := local(e)
	cfg.Partitions, cfg.Dialer, cfg.DataDir, cfg.RetentionBytes = 2, e.Dialer(), dir, 8<<20
	cfg.InFlight = 200 // batches are small beside a segment
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, e
}

// fill appends records of 1 KiB to p of l, in batches of ten.
func fill(t *testing.T, l *Log, p int32, count int) {
	t.Helper()
	j := &journal{}
	for n := 0; n < count; n += 10 {
		recs := make([]host.Record, 10)
		for i := range recs {
			recs[i] = host.Record{N: uint64(n + i), Key: []byte("d"), Value: make([]byte, 1000)}
		}
		l.Append(t.Context(), p, recs, j)
	}
	until(t, "all are written", func() bool { return len(j.answers()) == count })
}

func placed(next int64) host.Cursor { return host.Cursor{Next: next, Epoch: 7, N: uint64(next)} }

// onDisk is the size of the log's files.
func onDisk(t *testing.T, dir string) (total, changelog int64) {
	t.Helper()
	u, err := measure(dir, "doppel.telemetry")
	if err != nil {
		t.Fatal(err)
	}
	return u.total, u.total - u.others
}

// The files shrink to the size allowed, no further than what is needed, and only to places known.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	c, e := bounded(t, dir)
	trim := func() error { return c.trimAll(t.Context(), map[int32]int64{}) }
	start := func(topic string, p int32) int64 {
		t.Helper()
		o, err := c.offset(t.Context(), topic, p, listStart)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	unmoved := func(why string) {
		t.Helper()
		if got := start(c.topics.Telemetry, 0); got != 0 {
			t.Errorf("%s: got start %d, want 0", why, got)
		}
		if got, ok := c.Oldest(0); ok {
			t.Errorf("%s: got oldest %v, want none", why, got)
		}
	}
	const count = 20_000
	fill(t, c.Changelog(), 0, count)
	fill(t, c.Changelog(), 1, 2000)
	fill(t, c.State(), 0, 3000)
	before, _ := onDisk(t, dir)
	if before < 20<<20 {
		t.Fatalf("got %d bytes on disk, want more than are allowed", before)
	}
	if err := trim(); err != nil {
		t.Fatal(err)
	}
	unmoved("needs unknown")

	stored := int64(-1)
	c.SetRowsCursor(func(int32) (int64, bool) { return stored, stored >= 0 })
	for next := int64(0); next <= count; next += 700 {
		c.Needs(0, host.Needs{Changelog: placed(next), State: 2500, Ingest: 0})
	}
	if err := trim(); err == nil {
		t.Error("rows unknown: got no error")
	}
	unmoved("rows unknown")
	if got := start(c.topics.State, 0); got != 2500 {
		t.Errorf("got start of state %d, want 2500: it goes at once", got)
	}
	stored = 100
	if err := trim(); err == nil {
		t.Error("no place below the rows: got no error")
	}
	unmoved("no place below the rows")

	stored = 3000
	if err := trim(); err != nil {
		t.Fatal(err)
	}
	// Places are 1,024 records apart at least: 1400, 2800, 4200 ...
	if got, ok := c.Oldest(0); !ok || got != placed(2800) {
		t.Errorf("held by rows: got oldest %v, want the last place below 3000", got)
	}
	stored = count
	if err := trim(); err != nil {
		t.Fatal(err)
	}
	after, changelog := onDisk(t, dir)
	if after > 8<<20 {
		t.Errorf("got %d bytes on disk, want at most %d", after, 8<<20)
	}
	if changelog < 3<<20 {
		t.Errorf("got %d bytes of changelog, want no more gone than must", changelog)
	}
	oldest, ok := c.Oldest(0)
	if !ok || oldest != placed(oldest.Next) || oldest.Next%1400 != 0 {
		t.Errorf("got oldest %v, want one of the places given", oldest)
	}
	if got := start(c.topics.Telemetry, 0); got != oldest.Next {
		t.Errorf("got start %d, want the oldest cursor's, %d", got, oldest.Next)
	}
	if got := start(c.topics.Telemetry, 1); got != 0 {
		t.Errorf("got start %d of a partition within its share, want 0", got)
	}
	if err := trim(); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.Oldest(0); got != oldest {
		t.Errorf("got oldest %v when nothing was too large, want %v as before", got, oldest)
	}

	// After a kill and after a stop, the cursor is the same, and what it points at is there.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{killed, dir} {
		if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
			t.Fatal(err)
		}
		c, e = bounded(t, dir)
		if got, ok := c.Oldest(0); !ok || got != oldest {
			t.Errorf("reopened: got oldest %v, want %v", got, oldest)
		}
		from, end, err := c.Changelog().Bounds(t.Context(), 0)
		if err != nil || from > oldest.Next || end != count {
			t.Errorf("reopened: got bounds %d, %d and error %v, want %d or less and %d", from, end, err, oldest.Next, count)
		}
		next := oldest.Next
		if err := c.Changelog().Read(t.Context(), 0, oldest.Next, end, func(r host.LogRecord) error {
			if r.Offset != next {
				return fmt.Errorf("got offset %d, want %d", r.Offset, next)
			}
			next++
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := errors.Join(c.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Many small batches are too much as well: each costs the broker memory.
func TestRetentionBoundsBatches(t *testing.T) {
	segments := make([]segmentUse, 10)
	for i := range segments {
		segments[i] = segmentUse{base: int64(i), bytes: 1000, batches: 10}
	}
	for _, tt := range []struct {
		share int64
		want  int
	}{
		{200_000 * 2, 0}, {100 * bytesPerBatch, 0}, {50 * bytesPerBatch, 5}, {49 * bytesPerBatch, 6}, {0, 9},
	} {
		if got := firstKept(segments, tt.share); got != tt.want {
			t.Errorf("share of %d: got first segment kept %d, want %d", tt.share, got, tt.want)
		}
	}
	if got := firstKept(nil, 0); got != 0 {
		t.Errorf("nothing there: got %d, want 0", got)
	}
}

func TestCursorsStayFew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "retention.json")
	k, err := readCursors(path, "a log", 1)
	if err != nil {
		t.Fatal(err)
	}
	const last = 10_000_000
	for next := int64(0); next <= last; next += 100 {
		k.need(0, host.Needs{Changelog: placed(next)})
	}
	k.need(0, host.Needs{Changelog: placed(5)}) // of a stale owner
	places := k.parts[0].places
	if got := len(places); got > cursorsKept || got < cursorsKept/4 {
		t.Errorf("got %d places, want some, up to %d", got, cursorsKept)
	}
	for i, c := range places {
		if c != placed(c.Next) || i > 0 && c.Next <= places[i-1].Next {
			t.Fatalf("got place %v behind %v", c, places[max(i-1, 0)])
		}
	}
	if got, ok := k.cursorFor(0, last, last); !ok || got != placed(last) {
		t.Errorf("got cursor %v, want the newest", got)
	}
	mid, ok := k.cursorFor(0, last/2, last)
	if !ok || mid.Next < last/2 || mid.Next > last/2+last/50 {
		t.Errorf("got cursor %v, want one close behind %d", mid, last/2)
	}
	if err := k.trimTo(0, mid); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.cursorFor(0, 0, mid.Next); ok {
		t.Error("got a cursor that is trimmed to already")
	}
	again, err := readCursors(path, "a log", 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := again.oldest(0); !ok || got != mid {
		t.Errorf("read again: got oldest %v, want %v", got, mid)
	}
	if diff := cmp.Diff(k.parts[0].places, again.parts[0].places); diff != "" {
		t.Errorf("read again (-written +read):\n%s", diff)
	}
	other, err := readCursors(path, "another log", 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := other.oldest(0); ok {
		t.Errorf("of another log: got oldest %v, want none", got)
	}
}

// Run trims by itself.
func TestRunTrims(t *testing.T) {
	c, e := bounded(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	fill(t, c.State(), 1, 100)
	began := time.Now()
	c.Needs(1, host.Needs{State: 60})
	until(t, "state is trimmed", func() bool {
		start, _, err := c.State().Bounds(t.Context(), 1)
		return err == nil && start == 60
	})
	t.Logf("trimmed after %v", time.Since(began))
	cancel()
	if err := errors.Join(<-ended, c.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}
