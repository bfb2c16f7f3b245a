package questdb

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// t0 has nanoseconds that microseconds would round away.
var t0 = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC).UnixNano()

// testLog is one partition's changelog in memory, written as an owner writes it.
type testLog struct {
	part     int32 // its number
	mu       sync.Mutex
	records  []host.LogRecord
	lost     int64 // offsets below were removed by retention
	epoch, n uint64
	offered  host.Cursor
	lowest   int64 // lowest offset read since the last reset
	failing  error // what Read answers
	refuses  bool  // to read what was removed, instead of skipping it
}

const onlyPartition = 3

func newTestLog() *testLog {
	return &testLog{part: onlyPartition, lowest: math.MaxInt64, offered: host.Cursor{Epoch: noEpoch}}
}

// truncate removes what is below start, as retention does.
func (l *testLog) truncate(start int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = start
}

// oldest is what Config.Oldest is told by a log that keeps account of what it removes.
func (l *testLog) oldest(int32) (host.Cursor, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := host.Validator{Cursor: host.Cursor{Epoch: noEpoch}}
	var dec codec.EventDecoder
	var ev codec.Event
	for _, r := range l.records[:l.lost] {
		v.Valid(r.Offset, &ev, dec.Decode(r.Value, &ev))
	}
	return v.Cursor, true
}

// idle are the rows a new owner offers before it has any.
func (l *testLog) idle() *host.Rows {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered = host.Cursor{Next: int64(len(l.records)), Epoch: l.epoch, N: l.n}
	return &host.Rows{Partition: l.part, From: l.offered, To: l.offered, Recycle: func(*host.Rows) {}}
}

func (l *testLog) Bounds(_ context.Context, p int32) (start, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p != l.part {
		return 0, 0, fmt.Errorf("no partition %d", p)
	}
	return l.lost, int64(len(l.records)), nil
}

func (l *testLog) Read(_ context.Context, _ int32, from, to int64, fn func(host.LogRecord) error) error {
	l.mu.Lock()
	if l.failing != nil {
		defer l.mu.Unlock()
		return l.failing
	}
	l.lowest = min(l.lowest, from)
	if from < l.lost && l.refuses {
		defer l.mu.Unlock()
		return fmt.Errorf("offset %d is gone", from)
	}
	records := l.records[min(max(from, l.lost), to):to]
	l.mu.Unlock()
	for _, r := range records {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *testLog) lowestRead() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lowest
}

func (l *testLog) append(key string, value []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, host.LogRecord{Offset: int64(len(l.records)), Key: []byte(key), Value: value})
}

// claim opens an epoch.
func (l *testLog) claim() {
	l.epoch, l.n = uint64(len(l.records)), 0
	l.append("", codec.AppendEvent(nil, &codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Claim: &codec.Claim{Node: "n"}, Now: t0,
	}))
}

// event appends a record of the owner in force and gives the rows the owner would offer for it.
func (l *testLog) event(device string, applied []twin.AppliedSample, transitions ...alert.Alert) *host.Rows {
	l.n++
	ev := codec.Event{
		Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: l.epoch, N: l.n, Now: t0,
		Effects: twin.Effects{Outcome: twin.Applied, Applied: applied, Transitions: transitions},
	}
	for _, a := range applied {
		if a.Own {
			ev.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: t0, Sample: twin.Sample{
				Numbered: a.Numbered, Timed: true, Boot: a.Boot, Seq: a.Seq, Time: a.Time, Readings: readings(a.Readings),
			}}
		}
	}
	l.append(device, codec.AppendEvent(nil, &ev))
	to := host.Cursor{Next: int64(len(l.records)), Epoch: l.epoch, N: l.n}
	rows := &host.Rows{Partition: l.part, From: l.offered, To: to, Recycle: func(*host.Rows) {}}
	l.offered = to
	for _, a := range applied {
		row := host.Row{Device: device, Boot: a.Boot, Seq: a.Seq, Time: a.Time, Late: a.Late, Readings: a.Readings}
		if !a.Numbered {
			row.Boot, row.Seq = 0, a.Count
		}
		rows.Samples = append(rows.Samples, row)
	}
	for i, a := range transitions {
		rows.Alerts = append(rows.Alerts, host.Transition{Partition: l.part, Offset: to.Next - 1, Index: i, Device: device, Alert: a})
	}
	return rows
}

func readings(scored []twin.ScoredReading) []twin.Reading {
	out := make([]twin.Reading, len(scored))
	for i, r := range scored {
		out[i] = twin.Reading{Name: r.Name, Value: r.Value}
	}
	return out
}

// sample is the own sample seq of boot 1, a second after the one before, with the metrics given as
// name, value pairs, without z.
func sample(seq int, metrics ...any) []twin.AppliedSample {
	a := twin.AppliedSample{Own: true, Numbered: true, Boot: 1, Seq: uint64(seq), Time: t0 + int64(seq)*1e9, Count: uint64(seq)}
	for i := 0; i < len(metrics); i += 2 {
		a.Readings = append(a.Readings, twin.ScoredReading{Name: metrics[i].(string), Value: metrics[i+1].(float64), Z: math.NaN(), Score: math.NaN()})
	}
	return []twin.AppliedSample{a}
}

// letters keeps dead letters.
type letters struct {
	mu   sync.Mutex
	got  []host.DeadLetter
	fail error
}

func (l *letters) Put(_ context.Context, d host.DeadLetter, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail == nil {
		l.got = append(l.got, d)
	}
	go done(l.fail)
}

func (l *letters) all() []host.DeadLetter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]host.DeadLetter(nil), l.got...)
}

// fixture is a Writer on a log.
type fixture struct {
	*Writer
	t       *testing.T
	cfg     Config
	log     *testLog
	other   Changelog   // instead of log
	store   CursorStore // instead of the file path
	letters *letters
	path    string
	stop    func()
}

// newFixture has a Writer with short intervals, not yet running.
func newFixture(t *testing.T, cfg Config) *fixture {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = serverURL(t)
	}
	cfg.Node = "n"
	cfg.FlushInterval = 20 * time.Millisecond
	cfg.RetryMin, cfg.RetryMax = 10*time.Millisecond, 50*time.Millisecond
	f := &fixture{t: t, cfg: cfg, log: newTestLog(), letters: &letters{}, path: filepath.Join(t.TempDir(), "cursor.json")}
	f.renew()
	return f
}

// renew replaces the Writer, as a restart of the node does.
func (f *fixture) renew() {
	f.t.Helper()
	var log Changelog = f.log
	if f.other != nil {
		log = f.other
	}
	var store CursorStore = NewFileCursors(f.path, "test")
	if f.store != nil {
		store = f.store
	}
	w, err := New(f.cfg, log, store, f.letters, testLogger(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	f.Writer = w
}

// start runs the Writer until stop or the end of the test.
func (f *fixture) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Errorf("run: %v", err)
		}
	})
	f.t.Cleanup(f.stop)
}

// started waits until the Writer takes rows.
func (f *fixture) started() {
	f.t.Helper()
	f.start()
	eventually(f.t, "the writer takes rows", func() bool {
		f.inbox.mu.Lock()
		defer f.inbox.mu.Unlock()
		return f.inbox.open
	})
}

// offer offers rows and recycles what is not taken, as a partition does.
func (f *fixture) offer(r *host.Rows) bool {
	if f.Offer(r) {
		return true
	}
	r.Recycle(r)
	return false
}

// settled waits until QuestDB has everything that was offered.
func (f *fixture) settled() {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("no lag (now %v, %v)", f.Lag(), f.Err()), func() bool {
		return f.LagRecords() == 0
	})
}
