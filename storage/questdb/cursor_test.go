package questdb

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// logs are several partitions.
type logs map[int32]*testLog

func (l logs) Bounds(ctx context.Context, p int32) (start, end int64, err error) {
	return l[p].Bounds(ctx, p)
}

func (l logs) Read(ctx context.Context, p int32, from, to int64, fn func(host.LogRecord) error) error {
	return l[p].Read(ctx, p, from, to, fn)
}

func TestEachPartitionHasItsPosition(t *testing.T) {
	db := database(t)
	all := logs{}
	for p := range int32(3) {
		all[p] = newTestLog()
		all[p].part = p
		all[p].claim()
	}
	f := newFixture(t, Config{})
	f.other = all
	f.renew()
	if next, ok := f.Cursor(1); ok {
		t.Errorf("cursor %d before anything is known", next)
	}
	f.started()
	for p, l := range all {
		for seq := 1; seq <= 10*int(p+1); seq++ {
			f.offer(l.event(fmt.Sprintf("d%d", p), sample(seq, "m", 1.0)))
		}
	}
	f.settled()
	f.stop()

	// Two partitions go on while nobody writes rows, and one of them tells the new writer.
	for seq := 21; seq <= 25; seq++ {
		all[1].event("d1", sample(seq, "m", 1.0))
	}
	all[2].event("d2", sample(31, "m", 1.0))
	for _, l := range all {
		l.lowest = 1 << 60
	}
	f.renew()
	f.started()
	f.offer(all[1].idle())
	f.settled()
	want(t, db, "SELECT device, count() FROM telemetry ORDER BY device", "[[d0 10] [d1 25] [d2 30]]")
	if got := [...]int64{all[0].lowestRead(), all[1].lowestRead(), all[2].lowestRead()}; got != [...]int64{1 << 60, 21, 1 << 60} {
		t.Errorf("read from offsets %d, want partition 1 from 21 and nothing else", got)
	}
	f.stop()
	f.renew()
	f.started()
	for p, want := range []int64{11, 26, 31} {
		eventually(t, "stored cursors are known", func() bool { _, ok := f.Cursor(int32(p)); return ok })
		if next, _ := f.Cursor(int32(p)); next != want {
			t.Errorf("cursor of partition %d is %d, want %d", p, next, want)
		}
	}
	f.offer(all[2].idle())
	f.settled()
	want(t, db, "SELECT count() FROM telemetry WHERE device = 'd2'", "[[31]]")
}

// broken is a CursorStore of a node that dies before the cursor is written.
type broken struct{ CursorStore }

func (broken) Save(context.Context, map[int32]host.Cursor) error { return errors.New("killed") }

// TestKilledBetweenFlushAndCursor: the rows are in QuestDB, the cursor is not behind them: a restart
// writes them once more and nothing is there twice. Dead letters may be.
func TestKilledBetweenFlushAndCursor(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{MaxMetrics: 3})
	f.log.claim()
	f.started()
	run(t, db, "ALTER TABLE telemetry ADD COLUMN bad BOOLEAN")
	run(t, db, "INSERT INTO metric_columns VALUES ('bad', 'bad')")
	f.offer(f.log.event("d", sample(1, "m", 1.0)))
	f.settled()
	f.stop()

	f.store = broken{NewFileCursors(f.path, "test")}
	f.renew()
	f.started()
	for seq := 2; seq <= 100; seq++ {
		a := alert.Alert{ID: uint64(seq), State: alert.Firing, UpdateTime: t0}
		f.offer(f.log.event("d", sample(seq, "m", float64(seq), "M", 2.0, "long", 3.0), a))
	}
	f.offer(f.log.event("d", sample(101, "bad", 1.0)))
	want(t, db, "SELECT count() FROM telemetry", "[[100]]")
	eventually(t, "the row that is refused is a dead letter", func() bool { return len(f.letters.all()) > 0 })
	if next, _ := f.Cursor(onlyPartition); next != 2 {
		t.Errorf("cursor at %d though it was never written behind 2", next)
	}
	f.stop()

	f.store = nil
	f.renew()
	f.started()
	f.offer(f.log.idle())
	f.settled()
	if got := f.Stats().Reread.Load(); got != 100 {
		t.Errorf("read %d samples again, want all 100 behind the cursor", got)
	}
	want(t, db, "SELECT count(), sum(m), sum(M__2) FROM telemetry", "[[100 5050 198]]")
	want(t, db, "SELECT count(), sum(value) FROM telemetry_long", "[[99 297]]")
	want(t, db, "SELECT count() FROM alerts", "[[99]]")
	for _, d := range f.letters.all() {
		if d.Device != "d" || string(d.Payload) != fmt.Sprintf("telemetry,device=d boot=1i,seq=101i,bad=1 %d\n", t0+101e9) {
			t.Errorf("dead letter %+v", d)
		}
	}
}

func TestRetentionFasterThanQuestDBIsSaidLoudly(t *testing.T) {
	for _, tc := range []struct {
		name    string
		known   bool // the log knows the cursor at its start
		refuses bool
		live    bool // the writer runs while it happens
		rows    string
		lost    uint64
	}{
		// Offset 0 is a Claim, 61 another; offset n holds seq n, behind the second Claim seq n-1.
		{"at a restart", true, false, false, "[[83]]", 17},
		{"at a restart, start unknown", false, false, false, "[[70]]", 30},
		{"while running, skipped by the log", true, false, true, "[[83]]", 17},
		{"while running, refused by the log", true, true, true, "[[83]]", 17},
		{"while running, start unknown", false, true, true, "[[70]]", 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := database(t)
			link := newLink(t, serverURL(t))
			f := newFixture(t, Config{URL: link.url(), FlushRows: 10})
			if tc.known {
				f.cfg.Oldest = f.log.oldest
			}
			f.log.refuses = tc.refuses
			f.renew()
			f.log.claim()
			f.started()
			seq := 0
			more := func(to int, offer bool) {
				for seq < to {
					seq++
					if r := f.log.event("d", sample(seq, "m", 1.0)); offer {
						f.offer(r)
					}
				}
			}
			more(30, true)
			f.settled()
			if tc.live {
				link.cut()
				f.offer(f.log.idle())
				eventually(t, "the outage is noticed", func() bool {
					more(seq+1, true)
					return f.Err() != nil
				})
			} else {
				f.stop()
			}
			behind := seq
			if behind > 45 {
				t.Fatalf("noticed at %d only", behind)
			}
			more(60, tc.live)
			f.log.claim()
			more(100, tc.live)
			start := int64(48)
			f.log.truncate(start)
			if tc.live {
				link.mend()
			} else {
				f.renew()
				f.started()
				f.offer(f.log.idle())
			}
			f.settled()
			want(t, db, "SELECT count() FROM telemetry", tc.rows)
			if got := f.Stats().Lost.Load(); got != tc.lost {
				t.Errorf("lost %d, want %d", got, tc.lost)
			}
			more(101, true)
			f.settled()
			want(t, db, "SELECT max(seq) FROM telemetry", "[[101]]")
			if next, _ := f.Cursor(onlyPartition); next != int64(len(f.log.records)) {
				t.Errorf("cursor at %d, want the end", next)
			}
		})
	}
}

// TestReadingBackStopsAtAFullFlush: records differ in size, and what is read back is in memory.
func TestReadingBackStopsAtAFullFlush(t *testing.T) {
	f := newFixture(t, Config{URL: "http://127.0.0.1:1", FlushRows: 20})
	f.log.claim()
	for batch := range 10 {
		var applied []twin.AppliedSample
		for i := range 9 {
			applied = append(applied, sample(9*batch+i+1, "m", 1.0)...)
		}
		f.log.event("d", applied)
	}
	f.stored = map[int32]host.Cursor{onlyPartition: {Next: 1, Epoch: 0, N: 0}}
	p, err := f.partition(t.Context(), onlyPartition)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.readBack(t.Context(), p, 11); err != nil {
		t.Fatal(err)
	}
	if want := (host.Cursor{Next: 4, Epoch: 0, N: 3}); p.pos != want || len(f.items) != 27 {
		t.Errorf("at %+v with %d rows, want %+v with 27", p.pos, len(f.items), want)
	}
}

// TestASuspendedTableIsResumed: QuestDB answers for rows of a table it has suspended, and shows none.
func TestASuspendedTableIsResumed(t *testing.T) {
	db := database(t)
	f := newFixture(t, Config{})
	f.log.claim()
	f.started()
	f.offer(f.log.event("d", sample(1, "m", 1.0)))
	f.settled()
	want(t, db, "SELECT count() FROM telemetry", "[[1]]")
	run(t, db, "ALTER TABLE telemetry SUSPEND WAL")
	// QuestDB may be about to end the turn that made the first row visible, and take one more along.
	for seq := 2; seq <= 3; seq++ {
		f.offer(f.log.event("d", sample(seq, "m", 1.0)))
		f.settled()
	}
	const suspended = "SELECT suspended FROM wal_tables() WHERE name = 'telemetry'"
	want(t, db, suspended, "[[true]]")
	f.stop()
	f.renew()
	f.started()
	want(t, db, "SELECT count() FROM telemetry", "[[3]]")
	want(t, db, suspended, "[[false]]")
}
