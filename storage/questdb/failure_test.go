package questdb

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestARefusedLineGoesToTheDeadLettersAlone(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	// A column that someone made otherwise than as a double takes no reading.
	run(t, db, "ALTER TABLE telemetry ADD COLUMN broken BOOLEAN")
	for seq := 1; seq <= 300; seq++ {
		m := "m"
		if seq == 17 || seq > 200 && seq <= 250 {
			m = "broken"
		}
		f.offer(f.log.event("pump-7", sample(seq, m, float64(seq))))
	}
	f.settled()
	want(t, db, "SELECT count(), count(m) FROM telemetry", "[[249 249]]")
	got := f.letters.all()
	if len(got) != 51 {
		t.Fatalf("%d dead letters, want 51", len(got))
	}
	first := got[0]
	if first.ReceivedAt == 0 {
		t.Error("dead letter without a time")
	}
	first.ReceivedAt = 0
	if want := fmt.Sprintf("telemetry,device=pump-7 boot=1i,seq=17i,broken=17 %d\n", t0+17e9); string(first.Payload) != want {
		t.Errorf("payload %q, want %q", first.Payload, want)
	}
	if first.Device != "pump-7" || first.Reason != twin.QuestDBRefused || first.Node != "n" || first.ContentType != ContentType ||
		!strings.Contains(first.Detail, "column: broken") || strings.Contains(first.Detail, "error in line") {
		t.Errorf("dead letter %+v", first)
	}
	if got := f.Stats().Refused.Load(); got != 51 {
		t.Errorf("refused %d, want 51", got)
	}
}

func TestNothingIsCommittedBeforeTheDeadLetterIsDurable(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.letters.fail = errors.New("log is away")
	f.started()
	run(t, db, "ALTER TABLE telemetry ADD COLUMN broken BOOLEAN")
	f.offer(f.log.event("d", sample(1, "broken", 1.0)))
	eventually(t, "the failure shows", func() bool { return f.Err() != nil })
	if f.LagRecords() == 0 {
		t.Error("committed a row that is neither in QuestDB nor among the dead letters")
	}
	f.letters.mu.Lock()
	f.letters.fail = nil
	f.letters.mu.Unlock()
	f.settled()
	if got := len(f.letters.all()); got != 1 {
		t.Errorf("%d dead letters, want 1", got)
	}
}

func TestAnOutageCostsNeitherRowsNorMemory(t *testing.T) {
	db := database(t)
	link := newLink(t, serverURL(t))
	f := newFixture(t, Config{URL: link.url(), FlushRows: 500})
	f.log.claim()
	f.started()
	var out atomic.Int64 // rows in the writer's hands
	offer := func(seq int) bool {
		r := f.log.event("d", sample(seq, "m", 1.0))
		r.Recycle = func(*host.Rows) { out.Add(-1) }
		out.Add(1)
		return f.offer(r)
	}
	for seq := 1; seq <= 1000; seq++ {
		offer(seq)
	}
	f.settled()

	link.cut()
	seq := 1001
	eventually(t, "the outage is noticed", func() bool {
		taken := offer(seq)
		seq++
		return !taken && f.Err() != nil
	})
	for range 5000 {
		offer(seq)
		seq++
	}
	eventually(t, "nothing is kept in memory", func() bool { return out.Load() == 0 })
	if got := f.Lag()[onlyPartition]; got < 5000 {
		t.Errorf("lag is %d, want at least 5000", got)
	}

	link.mend()
	f.settled()
	if err := f.Err(); err != nil {
		t.Errorf("error after recovery: %v", err)
	}
	want(t, db, "SELECT count(), count_distinct(seq), max(seq) FROM telemetry", fmt.Sprintf("[[%d %d %d]]", seq-1, seq-1, seq-1))
	if f.Stats().Reread.Load() < 5000 {
		t.Errorf("read back %d, want what was missed", f.Stats().Reread.Load())
	}
	// And then it is live again.
	reread := f.Stats().Reread.Load()
	eventually(t, "live rows are taken", func() bool {
		taken := offer(seq)
		seq++
		f.settled()
		now := f.Stats().Reread.Load()
		live := taken && now == reread
		reread = now
		return live
	})
}

func TestRowsWithoutRoomAreReadBack(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{QueueRows: 10})
	f.log.claim()
	f.started()
	missed := 0
	for seq := 1; seq <= 20_000; seq++ {
		if !f.offer(f.log.event("d", sample(seq, "m", 1.0))) {
			missed++
		}
	}
	if missed == 0 {
		t.Fatal("the queue was never full")
	}
	f.settled()
	want(t, db, "SELECT count(), count_distinct(seq) FROM telemetry", "[[20000 20000]]")
}

func TestARestartGoesOnAtTheCursor(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	for seq := 1; seq <= 500; seq++ {
		f.offer(f.log.event("d", sample(seq, "m", 1.0)))
	}
	f.settled()
	f.stop()

	// Written by an owner whose writer never saw them; then a new owner claims.
	for seq := 501; seq <= 800; seq++ {
		f.log.event("d", sample(seq, "m", 1.0))
	}
	f.log.claim()
	f.renew()
	f.start()
	f.offer(f.log.idle())
	want(t, db, "SELECT count() FROM telemetry", "[[800]]")
	if got := f.log.lowestRead(); got != 501 {
		t.Errorf("read from offset %d, want 501: the rest is in QuestDB", got)
	}
	f.offer(f.log.event("d", sample(801, "m", 1.0)))
	f.settled()
	want(t, db, "SELECT count() FROM telemetry", "[[801]]")
}

func TestTheEndFlushesWhatWasTaken(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.cfg.FlushInterval = time.Hour
	f.renew()
	f.log.claim()
	f.started()
	f.log.offered = host.Cursor{} // as if the claim were in QuestDB
	f.offer(f.log.event("d", sample(1, "m", 1.0)))
	f.log.failing = errors.New("the log is closed already")
	f.stop()
	want(t, db, "SELECT count() FROM telemetry", "[[1]]")
	if got := f.LagRecords(); got != 0 {
		t.Errorf("lag %d after the last flush", got)
	}
}

func TestVoidRecordsMakeNoRows(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim() // offset 0
	f.log.event("d", sample(1, "m", 1.0))
	stale, staleN := f.log.epoch, f.log.n
	f.log.claim() // offset 2
	f.log.event("d", sample(2, "m", 1.0))
	// A stale owner's record, one written twice, one that skips a count, and bytes of no one.
	void := func(epoch, n uint64, seq int) {
		ev := codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: epoch, N: n, Now: t0}
		ev.Effects = twin.Effects{Outcome: twin.Applied, Applied: sample(seq, "m", 666.0)}
		ev.Effects.Applied[0].Own = false
		f.log.append("d", codec.AppendEvent(nil, &ev))
	}
	void(stale, staleN+1, 90)
	void(f.log.epoch, 1, 91)
	void(f.log.epoch, 7, 92)
	f.log.append("d", []byte("not a record"))
	f.log.event("d", sample(3, "m", 1.0))
	f.start()
	f.offer(f.log.idle())
	want(t, db, "SELECT seq, m FROM telemetry ORDER BY seq", "[[1 1] [2 1] [3 1]]")
	if got := f.Stats().Void.Load(); got != 4 {
		t.Errorf("counted %d void records, want 4", got)
	}
}

func TestTablesLostAreWrittenAgain(t *testing.T) {
	db := database(t)
	link := newLink(t, serverURL(t))
	f := newFixture(t, Config{URL: link.url()})
	f.log.claim()
	f.started()
	for seq := 1; seq <= 50; seq++ {
		f.offer(f.log.event("d", sample(seq, "m", 1.0)))
	}
	f.settled()
	link.cut()
	database(t)
	f.offer(f.log.event("d", sample(51, "m", 1.0)))
	eventually(t, "the outage is noticed", func() bool { return f.Err() != nil })
	link.mend()
	f.settled()
	want(t, db, "SELECT count() FROM telemetry", "[[51]]")
}

func TestAForeignTableIsNotWrittenTo(t *testing.T) {
	db := database(t)
	run(t, db, "CREATE TABLE telemetry (created TIMESTAMP, event SHORT, origin SHORT) TIMESTAMP(created) PARTITION BY DAY WAL")
	f := newFixture(t, Config{})
	f.log.claim()
	f.start()
	if f.offer(f.log.event("d", sample(1, "m", 1.0))) {
		t.Error("took a row with nowhere to put it")
	}
	eventually(t, "the reason shows", func() bool {
		err := f.Err()
		return errors.Is(err, errSchema) && strings.Contains(err.Error(), "telemetry.enabled=false")
	})
	run(t, db, "DROP TABLE telemetry")
	f.settled()
	want(t, db, "SELECT count() FROM telemetry", "[[1]]")
}

func TestALogThatCannotBeReadIsTriedAgain(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.log.event("d", sample(1, "m", 1.0))
	f.log.failing = errors.New("kafka is away")
	f.start()
	f.offer(f.log.idle())
	eventually(t, "the failure shows", func() bool { return errors.Is(f.Err(), f.log.failing) })
	f.log.mu.Lock()
	f.log.failing = nil
	f.log.mu.Unlock()
	f.settled()
	want(t, db, "SELECT count() FROM telemetry", "[[1]]")
}

// link is a TCP proxy that can be cut.
type link struct {
	lis    net.Listener
	target string

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{lis: lis, target: u.Host}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.serve()
	}()
	t.Cleanup(func() {
		lis.Close()
		l.cut()
		<-done
	})
	return l
}

func (l *link) url() string { return "http://" + l.lis.Addr().String() }

func (l *link) serve() {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		in, err := l.lis.Accept()
		if err != nil {
			return
		}
		out, err := net.DialTimeout("tcp", l.target, 10*time.Second)
		if err != nil {
			in.Close()
			continue
		}
		l.mu.Lock()
		if l.down {
			in.Close()
			out.Close()
		}
		l.conns = append(l.conns, in, out)
		l.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			wg.Go(func() {
				io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			})
		}
	}
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
