package kafka

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/doppel-iot/doppel/actors/host"
)

// childTrims tells a child that writes for ever to trim as well.
const childTrims = "DOPPEL_TEST_TRIM"

// trimmer tells the log at each acknowledgement that nothing below it is needed.
type trimmer struct {
	p    int32
	c    *Client
	mu   sync.Mutex
	last int64
}

// Ack implements host.Acks.
func (a *trimmer) Ack(n uint64, offset int64, err error) {
	printer{a.p}.Ack(n, offset, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil && offset > a.last+100 {
		a.last = offset
		a.c.keep.need(a.p, host.Needs{Changelog: host.Cursor{Next: offset + 1, Epoch: 1, N: n}})
	}
}

// writeAndTrim is a node that trims its log as fast as it can.
func writeAndTrim(dir string) error {
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		return err
	}
	c, err := Open(context.Background(), Config{
		Brokers: []string{e.Addr()}, Dialer: e.Dialer(), Embedded: true, Partitions: 2, Linger: -1, InFlight: 200, DataDir: dir, RetentionBytes: 4 << 20,
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			_ = c.trimAll(context.Background(), map[int32]int64{}) // often there is nothing it may remove
		}
	}()
	acks := []*trimmer{{p: 0, c: c}, {p: 1, c: c}}
	for n := uint64(1); ; n += 10 {
		recs := make([]host.Record, 10)
		for i := range recs {
			recs[i] = host.Record{N: n + uint64(i), Value: fmt.Appendf(nil, "%d %01000d", n+uint64(i), 0)}
		}
		for p := range int32(2) {
			c.Changelog().Append(context.Background(), p, recs, acks[p])
		}
	}
}

// A kill in the middle of trimming loses nothing that was to stay: offsets go on, what is above the
// oldest cursor is there, and the cursor is a true one.
func TestKillWhileTrimming(t *testing.T) {
	dir := t.TempDir()
	ends := map[int32]int64{}
	at := [2]map[int64]uint64{{}, {}}
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, childTrims+"=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killed := false
		got := 0
		for scan := bufio.NewScanner(out); scan.Scan(); got++ {
			var p int32
			var n uint64
			var offset int64
			if _, err := fmt.Sscan(scan.Text(), &p, &n, &offset); err != nil {
				continue // the line the kill cut off
			}
			if offset < ends[p] {
				t.Fatalf("round %d: p%d took a record at %d, behind one at %d", round, p, offset, ends[p]-1)
			}
			ends[p] = offset + 1
			at[p][offset] = n
			if got > 15_000+round*777 && !killed {
				killed = true
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); !killed {
			t.Fatalf("the child ended by itself: %v", err)
		}
	}
	e := embedded(t, dir)
	c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 2, DataDir: dir, RetentionBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for p := range int32(2) {
		oldest, ok := c.Oldest(p)
		start, end, err := c.Changelog().Bounds(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if !ok || oldest.Next < start || end < ends[p] || start == 0 {
			t.Errorf("p%d: got oldest %v (%v), bounds %d and %d, want a trimmed log to %d", p, oldest, ok, start, end, ends[p])
		}
		if got, ok := at[p][oldest.Next-1]; ok && got != oldest.N {
			t.Errorf("p%d: got oldest %v, want count %d", p, oldest, got)
		}
		next := oldest.Next
		if err := c.Changelog().Read(t.Context(), p, oldest.Next, end, func(r host.LogRecord) error {
			if r.Offset != next {
				return fmt.Errorf("got offset %d, want %d", r.Offset, next)
			}
			next++
			n, _, _ := strings.Cut(string(r.Value), " ")
			if want, ok := at[p][r.Offset]; ok && n != strconv.FormatUint(want, 10) {
				return fmt.Errorf("got record %s at %d, where %d was acknowledged", n, r.Offset, want)
			}
			return nil
		}); err != nil || next != end {
			t.Errorf("p%d: read to %d of %d, error %v", p, next, end, err)
		}
	}
}
