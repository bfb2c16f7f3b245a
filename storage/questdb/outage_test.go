package questdb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// server is a QuestDB of one test alone, to be killed.
type server struct {
	t    *testing.T
	dir  string
	port string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), port: "0"}
	s.start()
	t.Cleanup(func() { s.services("stop", "questdb", "--dir", s.dir) })
	return s
}

func (s *server) services(args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(context.Background(), "../../deploy/services/services", args...)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("services %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

func (s *server) start() {
	s.t.Helper()
	addr := s.services("start", "questdb", "--dir", s.dir, "--port", s.port)
	_, s.port, _ = strings.Cut(addr, ":")
}

func (s *server) url() string { return "http://127.0.0.1:" + s.port }

func (s *server) sql() *sqlClient {
	u, err := url.Parse(s.url())
	if err != nil {
		s.t.Fatal(err)
	}
	return newSQLClient(u, nil, 30*time.Second)
}

// kill ends the server as a power button would end the process: nothing is flushed or closed.
func (s *server) kill() {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the process is gone", func() bool {
		state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || bytes.Contains(state, []byte(") Z "))
	})
}

// TestKillOfQuestDBLosesNoRow kills QuestDB under load: what it has answered for stays, and what it
// has not comes again.
func TestKillOfQuestDBLosesNoRow(t *testing.T) {
	s := newServer(t)
	f := newFixture(t, Config{URL: s.url(), FlushRows: 2000})
	f.log.claim()
	f.started()
	seq := 0
	load := func(until func() bool) {
		t.Helper()
		eventually(t, "the load may end", func() bool {
			for range 200 {
				seq++
				f.offer(f.log.event("d"+strconv.Itoa(seq%7), sample(seq, "m", 1.0, "m"+strconv.Itoa(seq%11), 2.0)))
			}
			return until()
		})
	}
	for kill := range 2 {
		flushes := f.Stats().Flushes.Load()
		load(func() bool { return f.Stats().Flushes.Load() > flushes+uint64(3+2*kill) })
		s.kill()
		next, _ := f.Cursor(onlyPartition)
		load(func() bool { return f.Err() != nil })
		s.start()
		// Nothing committed may be missing, so look before the writer could write it again.
		if rows := run(t, s.sql(), "SELECT count() FROM wal_tables() WHERE suspended"); fmt.Sprint(rows) != "[[0]]" {
			t.Errorf("suspended tables: %v", rows)
		}
		want(t, s.sql(), fmt.Sprintf("SELECT count() FROM telemetry WHERE seq < %d", next), fmt.Sprintf("[[%d]]", next-1))
	}
	f.settled()
	want(t, s.sql(), "SELECT count(), count_distinct(seq), max(seq), sum(m) FROM telemetry", fmt.Sprintf("[[%d %d %d %d]]", seq, seq, seq, seq))
	if got := f.letters.all(); len(got) != 0 {
		t.Errorf("dead letters %+v, want none", got)
	}
	if got := f.Stats().Reread.Load(); got == 0 {
		t.Error("nothing was read back: the kills did not show")
	}
}

// between stands in front of the real QuestDB and does with requests for rows as it is told.
func between(t *testing.T, write func(w http.ResponseWriter, r *http.Request, forward http.Handler)) string {
	t.Helper()
	u, err := url.Parse(serverURL(t))
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(u)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/write") {
			write(w, r, forward)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestASlowQuestDBGetsEveryRowOnce: an answer that takes longer than the writer waits is no answer, though
// the rows are in. They come again.
func TestASlowQuestDBGetsEveryRowOnce(t *testing.T) {
	db := database(t)
	var slow atomic.Int64
	slow.Store(3)
	u := between(t, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if slow.Add(-1) < 0 {
			forward.ServeHTTP(w, r)
			return
		}
		forward.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
		<-r.Context().Done() // the writer has given up
	})
	f := newFixture(t, Config{URL: u, Timeout: 200 * time.Millisecond})
	f.log.claim()
	f.started()
	seq := 0
	eventually(t, "all slow answers are over", func() bool {
		seq++
		f.offer(f.log.event("d", sample(seq, "m", 1.0)))
		return slow.Load() < 0
	})
	f.settled()
	want(t, db, "SELECT count(), count_distinct(seq), max(seq) FROM telemetry", fmt.Sprintf("[[%d %d %d]]", seq, seq, seq))
	if err := f.Err(); err != nil {
		t.Errorf("error when it is fast again: %v", err)
	}
	if got := f.letters.all(); len(got) != 0 {
		t.Errorf("dead letters %+v, want none", got)
	}
}

// TestAServerErrorIsNoRefusal: an answer 5xx is about QuestDB, whatever line it names; one that says the
// request is too large is about its size.
func TestAServerErrorIsNoRefusal(t *testing.T) {
	db := database(t)
	var failures atomic.Int64
	u := between(t, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		body, err := io.ReadAll(r.Body)
		answer := func(status int, format string, args ...any) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, format, args...)
		}
		switch {
		case err != nil:
			return
		case failures.Add(1) <= 3:
			answer(500, `{"code":"internal error","message":"write error: telemetry, errno: 28, error: no space left","line":1,"errorId":"x"}`)
			return
		case len(body) > 2000:
			answer(413, `{"code":"request too large","message":"unable to read data: ILP line does not fit","line":3,"errorId":"x"}`)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	})
	f := newFixture(t, Config{URL: u})
	f.log.claim()
	f.started()
	for seq := 1; seq <= 200; seq++ {
		f.offer(f.log.event("d", sample(seq, "m", 1.0)))
	}
	f.settled()
	want(t, db, "SELECT count(), count_distinct(seq) FROM telemetry", "[[200 200]]")
	if got := f.letters.all(); len(got) != 0 {
		t.Errorf("%d dead letters, want none", len(got))
	}
	if failures.Load() <= 3 {
		t.Error("nothing failed")
	}
}

// endless is a changelog of any length that takes no memory: offset n holds sample n of its one epoch.
type endless struct {
	end atomic.Int64
	z   float64
}

const metricsOfEndless = 3

func (l *endless) applied(n int64) []twin.AppliedSample {
	a := sample(int(n))
	for m := range metricsOfEndless {
		a[0].Readings = append(a[0].Readings, twin.ScoredReading{Name: "metric_" + strconv.Itoa(m), Value: float64(n), Z: l.z, Score: math.NaN()})
	}
	return a
}

func (l *endless) Bounds(context.Context, int32) (start, end int64, err error) {
	return 0, l.end.Load(), nil
}

func (l *endless) Read(_ context.Context, _ int32, from, to int64, fn func(host.LogRecord) error) error {
	var buf []byte
	for n := from; n < to; n++ {
		ev := codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: t0, Claim: &codec.Claim{Node: "n"}}
		if n > 0 {
			a := l.applied(n)
			ev = codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, N: uint64(n), Now: t0, Effects: twin.Effects{Outcome: twin.Applied, Applied: a}}
			ev.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: t0, Sample: twin.Sample{
				Numbered: true, Timed: true, Boot: 1, Seq: uint64(n), Time: a[0].Time, Readings: readings(a[0].Readings),
			}}
		}
		buf = codec.AppendEvent(buf[:0], &ev)
		if err := fn(host.LogRecord{Offset: n, Key: []byte("d"), Value: buf}); err != nil {
			return err
		}
	}
	return nil
}

// rows are those of the next count samples.
func (l *endless) rows(count int) *host.Rows {
	from := max(l.end.Load(), 1)
	to := from + int64(count)
	r := &host.Rows{Partition: onlyPartition, Recycle: func(*host.Rows) {}}
	r.From, r.To = host.Cursor{Next: from, N: uint64(from - 1)}, host.Cursor{Next: to, N: uint64(to - 1)}
	for n := from; n < to; n++ {
		a := &l.applied(n)[0]
		r.Samples = append(r.Samples, host.Row{Device: "d", Boot: a.Boot, Seq: a.Seq, Time: a.Time, Readings: a.Readings})
	}
	l.end.Store(to)
	return r
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryIsFlatThroughAnOutage offers many times what may be in memory while QuestDB hangs, is away
// and comes back.
func TestMemoryIsFlatThroughAnOutage(t *testing.T) {
	const (
		hanging, away = 300_000, 300_000
		perRow        = 300      // bytes of a row in memory, at least
		bound         = 32 << 20 // a fifth of it all
	)
	if hanging*perRow < bound {
		t.Fatal("a writer that keeps everything would pass")
	}
	db := database(t)
	release := make(chan struct{})
	var hang atomic.Bool
	u := between(t, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if hang.Load() {
			<-release
		}
		forward.ServeHTTP(w, r)
	})
	link := newLink(t, u)
	f := newFixture(t, Config{URL: link.url(), QueueRows: 20_000, FlushRows: 5000, Timeout: time.Minute})
	log := &endless{z: 1}
	f.other = log
	f.renew()
	f.started()
	offer := func(n int) {
		for range n / 50 {
			f.offer(log.rows(50))
		}
	}
	offer(5000)
	f.settled()

	runtime.GC()
	base := heap()
	var peak atomic.Uint64
	look := func() {
		if h := heap(); h > base && h-base > peak.Load() {
			peak.Store(h - base)
		}
	}
	hang.Store(true)
	for range hanging / 10_000 {
		offer(10_000)
		runtime.GC()
		look()
	}
	link.cut()
	hang.Store(false)
	close(release)
	eventually(t, "the outage is noticed", func() bool { return f.Err() != nil })
	for range away / 10_000 {
		offer(10_000)
		runtime.GC()
		look()
	}
	if got := f.LagRecords(); got < hanging {
		t.Errorf("lag is %d, want at least %d", got, hanging)
	}
	link.mend()
	eventually(t, "everything is in QuestDB", func() bool {
		runtime.GC()
		look()
		return f.LagRecords() == 0
	})
	t.Logf("peak %d KiB above %d KiB", peak.Load()>>10, base>>10)
	if peak.Load() > bound {
		t.Errorf("memory grew by %d MiB, want at most %d", peak.Load()>>20, bound>>20)
	}
	want(t, db, "SELECT count(), count_distinct(seq), sum(metric_2) = sum(seq) FROM telemetry",
		fmt.Sprintf("[[%d %d true]]", log.end.Load()-1, log.end.Load()-1))
}
