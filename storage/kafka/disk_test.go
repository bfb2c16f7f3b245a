package kafka

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// smallDisk is a directory on a disk of 24 MiB. Where this process may not mount one, the guard is told
// of such a disk, of which the directory's files take their part.
func smallDisk(t *testing.T) (dir string, ask func(string) (space, error)) {
	t.Helper()
	const total = 24 << 20
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", total)); err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		return dir, spaceOf
	}
	return dir, func(dir string) (space, error) {
		used := int64(0)
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				var info fs.FileInfo
				if info, err = d.Info(); err == nil {
					used += info.Size()
				}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		return space{total: total, free: max(0, total-used)}, err
	}
}

// A disk that is full takes no record and no acknowledgement, loses none, and goes on when it has room.
func TestDiskFull(t *testing.T) {
	dir, ask := smallDisk(t)
	data := filepath.Join(dir, "log")
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	e.guard.ask = func(string) (space, error) { return ask(dir) }
	cfg := local(e)
	cfg.Partitions, cfg.Dialer, cfg.DataDir = 2, e.Dialer(), data
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{}
	sent := uint64(0)
	payload := make([]byte, 4096)
	send := func(count int) {
		recs := make([]host.Record, count)
		for i := range recs {
			sent++
			recs[i] = host.Record{N: sent, Value: append(strconv.AppendUint(nil, sent, 10), payload...)}
		}
		c.Changelog().Append(t.Context(), 0, recs, j)
	}
	send(10)
	until(t, "the first are written", func() bool { return len(j.answers()) == 10 })
	if err := e.Err(); err != nil {
		t.Fatalf("with room: got error %v", err)
	}

	ingested := make(chan error, 4)
	for round := range 3 {
		filler := filepath.Join(dir, "filler")
		s, err := ask(dir)
		if err != nil {
			t.Fatal(err)
		}
		// Room for a few records in the first round, for none in the others: others took the reserve too.
		take := s.free
		if round == 0 {
			take -= s.reserve() + 200<<10
		}
		if err := os.WriteFile(filler, make([]byte, take), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			send(10)
		}
		until(t, "the log says it is full", func() bool { return errors.Is(e.Err(), ErrDiskFull) })
		still := len(j.answers())
		until(t, "no more is acknowledged", func() bool {
			before := still
			_ = rest(t.Context(), 300*time.Millisecond)
			still = len(j.answers())
			return still == before
		})
		if uint64(still) == sent {
			t.Fatalf("round %d: all %d records were acknowledged by a full disk", round, sent)
		}
		_, end, err := c.Changelog().Bounds(t.Context(), 0)
		if err != nil || end != int64(still) {
			t.Errorf("round %d: got end %d and error %v, want the %d acknowledged", round, end, err, still)
		}
		if round == 0 { // checkpoints may still be written
			big := host.Message{Device: []byte("d"), Payload: make([]byte, 900<<10)}
			for range 4 { // more than they may have, and waiting for the same disk
				c.Ingest().Append(t.Context(), 1, &big, func(err error) { ingested <- err })
			}
			k := &journal{}
			c.State().Append(t.Context(), 1, []host.Record{{N: 1, Key: []byte("d"), Value: []byte("checkpoint")}}, k)
			until(t, "the checkpoint is written", func() bool { return len(k.answers()) == 1 })
			if err := k.answers()[0].err; err != nil {
				t.Errorf("checkpoint on a full disk: %v", err)
			}
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			for range cap(ingested) {
				if err := <-ingested; err != nil {
					t.Errorf("ingest: %v", err)
				}
			}
		}
		until(t, "the rest is written", func() bool { return uint64(len(j.answers())) == sent })
		if err := e.Err(); err != nil {
			t.Errorf("with room again: got error %v", err)
		}
	}
	for i, a := range j.answers() {
		if a.err != nil || a.n != uint64(i+1) || a.offset != int64(i) {
			t.Fatalf("got answer %+v at place %d", a, i)
		}
	}
	check := func() {
		t.Helper()
		n := uint64(0)
		if err := c.Changelog().Read(t.Context(), 0, 0, int64(sent), func(r host.LogRecord) error {
			n++
			if want := append(strconv.AppendUint(nil, n, 10), payload...); !slices.Equal(r.Value, want) {
				return fmt.Errorf("record %d is another one", n)
			}
			return nil
		}); err != nil || n != sent {
			t.Errorf("got %d records and error %v, want %d", n, err, sent)
		}
	}
	check()
	if err := errors.Join(c.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if e, err = OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: data}); err != nil {
		t.Fatal(err)
	}
	cfg.Brokers, cfg.Dialer = []string{e.Addr()}, e.Dialer()
	if c, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	check()
	if err := errors.Join(c.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// childLimit tells a child that its files may not grow beyond so many bytes, for a while.
const childLimit = "DOPPEL_TEST_FILE_LIMIT"

// writeToALimit writes records, meets the limit, has it lifted, and claims that it then goes on.
func writeToALimit(dir string, limit uint64) error {
	signal.Ignore(syscall.SIGXFSZ)
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		return err
	}
	c, err := Open(context.Background(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 1, Linger: -1})
	if err != nil {
		return err
	}
	var rl syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &rl); err != nil {
		return err
	}
	before := rl.Cur
	rl.Cur = limit
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &rl); err != nil {
		return err
	}
	failed := false
	after := 0
	for n := uint64(1); after < 100; n++ {
		j := &journal{}
		c.Changelog().Append(context.Background(), 0, []host.Record{{N: n, Value: fmt.Appendf(nil, "%d %0300d", n, n)}}, j)
		for len(j.answers()) == 0 {
			if err := rest(context.Background(), 100*time.Microsecond); err != nil {
				return err
			}
		}
		a := j.answers()[0]
		switch {
		case a.err != nil && failed:
			return fmt.Errorf("record %d after the limit was lifted: %w", n, a.err)
		case a.err != nil:
			failed = true
			if e.Err() == nil {
				return errors.New("a write failed and the log calls itself well")
			}
			fmt.Fprintf(os.Stdout, "failed %d\n", n)
			rl.Cur = before
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &rl); err != nil {
				return err
			}
		default:
			fmt.Fprintf(os.Stdout, "0 %d %d\n", n, a.offset)
			if failed {
				after++
			}
		}
	}
	fmt.Fprintln(os.Stdout, "done")
	select {} // to be killed
}

// A write that fails in the broker is an error for its producer, is not acknowledged, and harms nothing
// that was; the log goes on by itself, and after a kill.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childLimit+"=100000")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at := map[int64]uint64{}
	failed, done := uint64(0), false
	for scan := bufio.NewScanner(out); scan.Scan(); {
		line := scan.Text()
		var p int32
		var n uint64
		var offset int64
		switch {
		case line == "done":
			done = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		case strings.HasPrefix(line, "failed "):
			failed, _ = strconv.ParseUint(line[len("failed "):], 10, 64)
		default:
			if _, err := fmt.Sscan(line, &p, &n, &offset); err != nil {
				t.Fatal(err)
			}
			if other, ok := at[offset]; ok {
				t.Errorf("records %d and %d were acknowledged at %d", other, n, offset)
			}
			at[offset] = n
		}
	}
	if err := cmd.Wait(); !done {
		t.Fatalf("the child ended by itself: %v", err)
	}
	if failed == 0 {
		t.Fatal("no write failed")
	}
	e := embedded(t, dir)
	c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, end, err := c.Changelog().Bounds(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Changelog().Read(t.Context(), 0, 0, end, func(r host.LogRecord) error {
		n, _, _ := strings.Cut(string(r.Value), " ")
		if want, ok := at[r.Offset]; ok && n != strconv.FormatUint(want, 10) {
			t.Errorf("got record %s at %d, where %d was acknowledged", n, r.Offset, want)
		}
		delete(at, r.Offset)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(at) > 0 {
		t.Errorf("%d acknowledged records are not there", len(at))
	}
}
