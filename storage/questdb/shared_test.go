package questdb

import (
	"fmt"
	"testing"

	"github.com/doppel-iot/doppel/storage/kafka"
)

// sharedCursors gives stores for the cursors of several nodes.
func sharedCursors(t *testing.T) func() CursorStore {
	t.Helper()
	embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{embedded.Addr()}, Embedded: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return func() CursorStore { return client.RowCursors("doppel-questdb") }
}

// nodes are Writers on one log with one QuestDB, each by a link of its own.
func nodes(t *testing.T, n int) (log *testLog, fs []*fixture, links []*link, stores func() CursorStore) {
	t.Helper()
	log, stores = newTestLog(), sharedCursors(t)
	for range n {
		link := newLink(t, serverURL(t))
		f := newFixture(t, Config{URL: link.url(), Shared: true, FlushRows: 50})
		f.log, f.store = log, stores()
		f.renew()
		f.started()
		fs, links = append(fs, f), append(links, link)
	}
	return log, fs, links, stores
}

// A partition moves between two nodes again and again: let go of in order, after its next owner had
// begun already, or with the death of its owner. QuestDB gets every row once.
func TestRowsSurviveMoves(t *testing.T) {
	db := database(t)
	log, fs, links, stores := nodes(t, 2)
	seq, total := 0, 0
	more := func(f *fixture, n int) {
		for range n {
			seq++
			total++
			r := log.event("d", sample(seq, "m", 1.0))
			if f != nil {
				f.offer(r)
			}
		}
	}
	const rounds = 12
	for round := range rounds {
		me, other := fs[round%2], fs[1-round%2]
		log.claim()
		if round%4 == 1 {
			me.offer(log.idle()) // rows come before the word that they are ours
			more(me, 5)
		}
		me.Own(onlyPartition)
		if round%3 == 1 {
			other.Release(onlyPartition) // late
		}
		me.offer(log.idle())
		more(me, 120)
		switch round % 3 {
		case 0: // the next owner begins first
			me.settled()
		case 1:
			eventually(t, "something is flushed", func() bool { n, ok := me.Cursor(onlyPartition); return ok && n > int64(total)/2 })
			me.Release(onlyPartition)
			eventually(t, "no lag of a partition that is gone", func() bool { _, ok := me.Lag()[onlyPartition]; return !ok })
		case 2: // killed, and started again
			links[round%2].cut()
			more(me, 30)
			me.stop()
			links[round%2].mend()
			me.store = stores()
			me.renew()
			me.started()
		}
		more(nil, 7) // nobody writes rows of these
	}
	last := fs[rounds%2]
	log.claim()
	last.Own(onlyPartition)
	last.offer(log.idle())
	last.settled()
	want(t, db, "SELECT count(), count_distinct(seq), max(seq) FROM telemetry", fmt.Sprintf("[[%d %d %d]]", total, total, seq))
	eventually(t, "the cursor stands at the end", func() bool {
		stored, err := last.store.Load(t.Context())
		return err == nil && stored[onlyPartition].Next == int64(len(log.records))
	})
	void := fs[0].Stats().Void.Load() + fs[1].Stats().Void.Load()
	if void > 0 {
		t.Errorf("%d void records, want none: a cursor was wrong", void)
	}
}

// What is committed is not written again by the next owner.
func TestTheNextOwnerGoesOnAtTheCursor(t *testing.T) {
	db := database(t)
	log, fs, _, _ := nodes(t, 2)
	log.claim()
	fs[0].Own(onlyPartition)
	fs[0].offer(log.idle())
	for seq := 1; seq <= 40; seq++ {
		fs[0].offer(log.event("d", sample(seq, "m", 1.0)))
	}
	fs[0].settled()
	fs[0].Release(onlyPartition)
	for seq := 41; seq <= 50; seq++ {
		if fs[0].offer(log.event("d", sample(seq, "m", 1.0))) {
			t.Fatal("took rows of a partition it does not own")
		}
	}
	log.claim()
	fs[1].Own(onlyPartition) // and nothing is ever offered
	want(t, db, "SELECT count() FROM telemetry", "[[50]]")
	fs[1].settled()
	if got := fs[1].Stats().Reread.Load(); got != 10 {
		t.Errorf("read %d samples again, want the 10 behind the cursor", got)
	}
	if got := fs[0].Lag(); len(got) != 0 {
		t.Errorf("the first owner lags %v, want nothing", got)
	}
}

// QuestDB loses its tables while two nodes write: both write all rows of their partitions again, also
// the one that did not find them missing.
func TestLostTablesAreFilledByAllNodes(t *testing.T) {
	db := database(t)
	all, stores := logs{}, sharedCursors(t)
	var fs []*fixture
	var links []*link
	for p := range int32(2) {
		all[p] = newTestLog()
		all[p].part = p
		all[p].claim()
	}
	for p := range int32(2) {
		link := newLink(t, serverURL(t))
		f := newFixture(t, Config{URL: link.url(), Shared: true})
		f.other, f.store = all, stores()
		f.renew()
		f.started()
		f.Own(p)
		for seq := 1; seq <= 50; seq++ {
			f.offer(all[p].event(fmt.Sprintf("d%d", p), sample(seq, "m", 1.0)))
		}
		f.settled()
		fs, links = append(fs, f), append(links, link)
	}
	want(t, db, "SELECT device, count() FROM telemetry ORDER BY device", "[[d0 50] [d1 50]]")
	for _, l := range links {
		l.cut()
	}
	for p, f := range fs {
		seq := 50
		eventually(t, "the outage is noticed", func() bool {
			if seq < 90 {
				seq++
				f.offer(all[int32(p)].event(fmt.Sprintf("d%d", p), sample(seq, "m", 1.0)))
			}
			return f.Err() != nil
		})
		for ; seq < 90; seq++ {
			f.offer(all[int32(p)].event(fmt.Sprintf("d%d", p), sample(seq+1, "m", 1.0)))
		}
	}
	database(t) // drops the tables
	links[0].mend()
	want(t, db, "SELECT device, count() FROM telemetry ORDER BY device", "[[d0 90]]")
	links[1].mend()
	want(t, db, "SELECT device, count() FROM telemetry ORDER BY device", "[[d0 90] [d1 90]]")
	for _, f := range fs {
		f.settled()
	}
}

// The same while one node has not noticed at all: it finds its cursor reset when it commits.
func TestAResetIsNoticedAtTheNextCommit(t *testing.T) {
	db := database(t)
	log, fs, _, stores := nodes(t, 1)
	f := fs[0]
	log.claim()
	f.Own(onlyPartition)
	for seq := 1; seq <= 50; seq++ {
		f.offer(log.event("d", sample(seq, "m", 1.0)))
	}
	f.settled()
	run(t, db, "TRUNCATE TABLE telemetry")
	if err := stores().Reset(t.Context()); err != nil { // as another node does
		t.Fatal(err)
	}
	f.offer(log.event("d", sample(51, "m", 1.0)))
	want(t, db, "SELECT count(), count_distinct(seq) FROM telemetry", "[[51 51]]")
	eventually(t, "it recovers", func() bool { return f.Err() == nil && f.LagRecords() == 0 })
}
