package kafka

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/actors/host"
)

// childDir tells a copy of this test binary to be a node that writes until it is killed.
const childDir = "DOPPEL_TEST_EMBEDDED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child := writeForEver
		if limit, err := strconv.ParseUint(os.Getenv(childLimit), 10, 64); err == nil {
			child = func(dir string) error { return writeToALimit(dir, limit) }
		}
		if os.Getenv(childTrims) != "" {
			child = writeAndTrim
		}
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// printer reports each acknowledgement on standard output: partition, count, offset.
type printer struct{ p int32 }

func (a printer) Ack(n uint64, offset int64, err error) {
	if err == nil {
		fmt.Fprintf(os.Stdout, "%d %d %d\n", a.p, n, offset)
	}
}

func writeForEver(dir string) error {
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		return err
	}
	c, err := Open(context.Background(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 4, Linger: -1})
	if err != nil {
		return err
	}
	for n := uint64(1); ; n += 10 {
		recs := make([]host.Record, 10)
		for i := range recs {
			recs[i] = host.Record{N: n + uint64(i), Value: strconv.AppendUint(nil, n+uint64(i), 10)}
		}
		for p := range int32(4) {
			c.Changelog().Append(context.Background(), p, recs, printer{p})
		}
	}
}

// What was acknowledged before kill -9 is there afterwards, once and where it was said to be.
func TestEmbeddedSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[int32]map[uint64]int64{}
	total := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(out)
		killed := false
		for got := 0; scan.Scan(); got++ {
			var p int32
			var n uint64
			var offset int64
			if _, err := fmt.Sscan(scan.Text(), &p, &n, &offset); err != nil {
				continue // the line the kill cut off
			}
			if acknowledged[p] == nil {
				acknowledged[p] = map[uint64]int64{}
			}
			acknowledged[p][uint64(round)<<32|n] = offset
			total++
			if got > 3000 && !killed {
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
	c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for p := range int32(4) {
		start, end, err := c.Changelog().Bounds(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		at := map[int64]string{}
		want := start
		if err := c.Changelog().Read(t.Context(), p, start, end, func(r host.LogRecord) error {
			if r.Offset != want {
				return fmt.Errorf("got offset %d, want %d", r.Offset, want)
			}
			at[r.Offset] = string(r.Value)
			want++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		used := map[int64]uint64{}
		for key, offset := range acknowledged[p] {
			n := key & 0xffffffff
			if got := at[offset]; got != strconv.FormatUint(n, 10) {
				t.Errorf("p%d: got %q at %d, where record %d was acknowledged", p, got, offset, n)
			}
			if other, ok := used[offset]; ok {
				t.Errorf("p%d: records %d and %d were acknowledged at %d", p, n, other&0xffffffff, offset)
			}
			used[offset] = key
		}
	}
	t.Logf("%d records acknowledged before 3 kills", total)
}

// A batch that a crash cut off is dropped; what lies before it stays, and writing goes on behind it.
func TestEmbeddedDropsTornTail(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Embedded: true, Partitions: 1}
	session := func(use func(l *Log)) {
		t.Helper()
		e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Brokers = []string{e.Addr()}
		c, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		use(c.Changelog())
		if err := errors.Join(c.Close(), e.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write := func(l *Log, from uint64, wantOffset int64) {
		t.Helper()
		j := &journal{}
		l.Append(t.Context(), 0, numbered(from, 10), j)
		until(t, "all are answered", func() bool { return len(j.answers()) == 10 })
		for i, a := range j.answers() {
			if a.err != nil || a.offset != wantOffset+int64(i) {
				t.Fatalf("got %+v, want offset %d", a, wantOffset+int64(i))
			}
		}
	}
	session(func(l *Log) { write(l, 1, 0) })
	session(func(l *Log) { write(l, 11, 10) })

	segments, err := filepath.Glob(filepath.Join(dir, "partitions", "doppel.telemetry-0", "*.dat"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("got segments %v and error %v, want one", segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], append(whole, whole[:len(whole)/3]...), 0o600); err != nil {
		t.Fatal(err)
	}
	session(func(l *Log) {
		write(l, 21, 20)
		n := 0
		if err := l.Read(t.Context(), 0, 0, 30, func(host.LogRecord) error { n++; return nil }); err != nil || n != 30 {
			t.Errorf("got %d records and error %v, want 30", n, err)
		}
	})
}

func TestEmbeddedLocksItsDirectory(t *testing.T) {
	dir := t.TempDir()
	embedded(t, dir)
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err == nil {
		e.Close()
		t.Fatal("opened a directory in use")
	}
	if want := "is in use"; !strings.Contains(err.Error(), want) {
		t.Errorf("got error %q, want %q in it", err, want)
	}
}

func TestEmbeddedAddress(t *testing.T) {
	a := embedded(t, "")
	if _, err := OpenEmbedded(EmbeddedConfig{Addr: a.Addr()}); err == nil {
		t.Error("opened an address in use")
	}
	if strings.HasSuffix(a.Addr(), ":0") {
		t.Errorf("got address %s, want a real port", a.Addr())
	}
}

// Clients outside are served while those inside are.
func TestEmbeddedServesBothDoors(t *testing.T) {
	e := embedded(t, "")
	inside := local(e)
	inside.Partitions, inside.Dialer = 1, e.Dialer()
	outside := local(e)
	outside.Partitions = 1
	in, out := open(t, inside), open(t, outside)
	j := &journal{}
	in.Changelog().Append(t.Context(), 0, numbered(1, 10), j)
	until(t, "all are answered", func() bool { return len(j.answers()) == 10 })
	n := 0
	if err := out.Changelog().Read(t.Context(), 0, 0, 10, func(host.LogRecord) error { n++; return nil }); err != nil || n != 10 {
		t.Errorf("got %d records and error %v, want 10", n, err)
	}
}
