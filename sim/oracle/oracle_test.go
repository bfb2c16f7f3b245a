package oracle

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

const boot = 9

// sent is a device that sent 10 samples.
func sent() Device {
	return Device{ID: "d1", Boot: boot, Sum: device.Sum{Digest: 0xd, Set: 0x5, Samples: 10}}
}

// faults are the kinds of difference of an account, each with its count.
func faults(a *account) map[Fault]uint64 {
	got := make(map[Fault]uint64)
	for _, f := range a.findings {
		got[f.Fault] += f.Count
	}
	return got
}

func TestTwinDifferences(t *testing.T) {
	t.Parallel()
	twin := func(digest, set, applied, late uint64) *doppelv1.Twin {
		return &doppelv1.Twin{Id: "d1", Digest: digest, SetDigest: set, Counters: &doppelv1.Counters{Applied: applied, Late: late}}
	}
	before := base{applied: 100, late: 3}
	for _, c := range []struct {
		name   string
		device func(*Device)
		twin   *doppelv1.Twin
		want   map[Fault]uint64
	}{
		{"equal", nil, twin(0xd, 0x5, 110, 3), map[Fault]uint64{}},
		{"no twin", nil, nil, map[Fault]uint64{Lost: 10}},
		{"lost", nil, twin(0xd, 0x6, 107, 3), map[Fault]uint64{Lost: 3, Mismatch: 1}},
		{"doubled", nil, twin(0xd, 0x5, 112, 3), map[Fault]uint64{Duplicated: 2}},
		{"other content", nil, twin(0xd, 0x6, 110, 3), map[Fault]uint64{Mismatch: 1}},
		{"other order", nil, twin(0xe, 0x5, 110, 3), map[Fault]uint64{Mismatch: 1}},
		{"late", nil, twin(0xe, 0x5, 108, 5), map[Fault]uint64{Reordered: 2}},
		{"swapped too far", func(d *Device) { d.Swapped = 2 }, twin(0xe, 0x5, 108, 5), map[Fault]uint64{}},
		{"unacknowledged and gone", func(d *Device) { d.Unacked = []uint64{9, 10} }, twin(0x1, 0x1, 108, 3), map[Fault]uint64{}},
		{"unacknowledged, more gone", func(d *Device) { d.Unacked = []uint64{9, 10} }, twin(0x1, 0x1, 107, 3), map[Fault]uint64{Lost: 1}},
	} {
		d := sent()
		if c.device != nil {
			c.device(&d)
		}
		twins := map[string]*doppelv1.Twin{}
		if c.twin != nil {
			twins["d1"] = c.twin
		}
		a := judgeTwins([]Device{d}, map[string]base{"d1": before}, twins)
		if diff := cmp.Diff(c.want, faults(a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// log is a changelog being fed.
type log struct {
	*changelog
	offset int64
	epoch  uint64
	n      uint64
}

func newLog(epochs map[int32]uint64) *log {
	l := newLedger(time.Now().Add(-time.Second), []string{"d1"})
	l.Sent(0, 1, 10, time.Now().UnixNano())
	return &log{changelog: newChangelog(boot, l, epochs)}
}

func (l *log) claim() {
	l.epoch, l.n = uint64(l.offset), 0
	l.record(0, l.offset, "", &doppelv1.TwinEvent{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM}, time.Now())
	l.offset++
}

// append writes a record whose own sample has the first number, and which releases the others.
func (l *log) append(late bool, numbers ...uint64) {
	l.n++
	l.raw(l.epoch, l.n, late, numbers...)
}

func (l *log) raw(epoch, n uint64, late bool, numbers ...uint64) {
	e := &doppelv1.TwinEvent{Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: epoch, N: n}
	b := uint64(boot)
	for i, seq := range numbers {
		if i == 0 {
			e.Sample = &doppelv1.SampleInput{Boot: &b, Seq: &seq}
			e.Applied = append(e.Applied, &doppelv1.AppliedSample{Own: true, Late: late})
			continue
		}
		e.Applied = append(e.Applied, &doppelv1.AppliedSample{Boot: &b, Seq: &seq})
	}
	l.record(0, l.offset, "d1", e, time.Now())
	l.offset++
}

func TestLogDifferences(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		feed func(l *log)
		void uint64
		want map[Fault]uint64
	}{
		{"all in order", func(l *log) {
			l.append(false, 1)
			l.append(false)          // 3 is held
			l.append(false, 2, 3, 4) // and released
			l.append(false, 5)
			l.append(false, 6, 7, 8, 9, 10)
		}, 0, map[Fault]uint64{}},
		{"lost", func(l *log) { l.append(false, 1, 2, 3, 4, 5, 6, 9, 10) }, 0, map[Fault]uint64{Lost: 2}},
		{"doubled", func(l *log) {
			l.append(false, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			l.append(false, 4)
		}, 0, map[Fault]uint64{Duplicated: 1}},
		{"out of order", func(l *log) {
			l.append(false, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10)
		}, 0, map[Fault]uint64{Reordered: 1}},
		{"late", func(l *log) {
			l.append(false, 1, 3, 4, 5, 6, 7, 8, 9, 10)
			l.append(true, 2)
		}, 0, map[Fault]uint64{Reordered: 1}},
		{"straggler of an older epoch is no duplicate", func(l *log) {
			old, n := l.epoch, l.n
			l.claim()
			l.raw(old, n+1, false, 1)
			l.append(false, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		}, 1, map[Fault]uint64{}},
		{"record written twice counts once", func(l *log) {
			l.append(false, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			l.raw(l.epoch, l.n, false, 1)
		}, 1, map[Fault]uint64{}},
		{"only in a void record is lost", func(l *log) {
			l.append(false, 1, 2, 3, 4, 5, 6, 7, 8, 9)
			l.raw(l.epoch, l.n+2, false, 10)
		}, 1, map[Fault]uint64{Lost: 1}},
	} {
		l := newLog(nil)
		l.claim()
		c.feed(l)
		a := l.judge([]Device{sent()})
		if diff := cmp.Diff(c.want, faults(a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if l.void != c.void {
			t.Errorf("%s: %d void records, want %d", c.name, l.void, c.void)
		}
		if l.complete([]Device{sent()}) != (c.want[Lost] == 0) {
			t.Errorf("%s: complete is %v", c.name, c.want[Lost] != 0)
		}
	}
}

// With the log at hand, a swapped sample may be late only if the twin waited as long as it must.
func TestHastyGap(t *testing.T) {
	t.Parallel()
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name   string
		waited int64
		held   int
		want   map[Fault]uint64
	}{
		{"long enough", 500 * ms, 1, map[Fault]uint64{}},
		{"too short", 499 * ms, 1, map[Fault]uint64{Reordered: 1}},
		{"too many", 10 * ms, 64, map[Fault]uint64{}},
		{"nearly too many", 10 * ms, 63, map[Fault]uint64{Reordered: 1}},
	} {
		l := newLog(nil)
		l.claim()
		l.append(false, 1)
		b, n := uint64(boot), uint64(c.held+2)
		write := func(e *doppelv1.TwinEvent) {
			l.n++
			e.Epoch, e.N = l.epoch, l.n
			l.record(0, l.offset, "d1", e, time.Now())
			l.offset++
		}
		var released []*doppelv1.AppliedSample
		for seq := uint64(3); seq <= n; seq++ {
			write(&doppelv1.TwinEvent{
				Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Outcome: doppelv1.EventOutcome_EVENT_OUTCOME_HELD,
				Now: 1000 * ms, Sample: &doppelv1.SampleInput{Boot: &b, Seq: &seq},
			})
			released = append(released, &doppelv1.AppliedSample{Boot: &b, Seq: &seq})
		}
		write(&doppelv1.TwinEvent{
			Kind: doppelv1.EventKind_EVENT_KIND_GAP, Gap: &doppelv1.GapInput{Boot: boot, UpTo: 3},
			Now: 1000*ms + c.waited, Applied: released,
		})
		l.append(true, 2)
		d := sent()
		d.Swapped, d.Sum.Samples = 1, n
		if diff := cmp.Diff(c.want, faults(l.judge([]Device{d}))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Without the log, few late samples of many swapped are the machine's doing, many are the twin's.
func TestLateShare(t *testing.T) {
	t.Parallel()
	for late, want := range map[uint64]uint64{0: 0, 10: 0, 11: 11, 200: 200} {
		a := &account{source: "twin", late: late}
		judgeLate(a, []Device{{Swapped: 150}, {Swapped: 50}})
		if a.reordered != want {
			t.Errorf("%d of 200 late: reordered %d, want %d", late, a.reordered, want)
		}
	}
}

// A reader that begins in the middle of an epoch holds on to the one the node names.
func TestLogFromTheMiddle(t *testing.T) {
	t.Parallel()
	l := newLog(map[int32]uint64{0: 50})
	l.offset = 100
	l.raw(20, 7, false, 1) // a straggler
	l.raw(50, 31, false, 1, 2, 3, 4, 5)
	l.raw(50, 32, false, 6, 7, 8, 9, 10)
	a := l.judge([]Device{sent()})
	if diff := cmp.Diff(map[Fault]uint64{}, faults(a)); diff != "" || l.void != 1 {
		t.Errorf("void %d (-want +got):\n%s", l.void, diff)
	}
	if l.latency.TotalCount() != 10 {
		t.Errorf("%d latencies, want 10", l.latency.TotalCount())
	}
}

func TestRowDifferences(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rows map[string][2]uint64 // rows, distinct numbers
		want map[Fault]uint64
	}{
		{"equal", map[string][2]uint64{"d1": {10, 10}}, map[Fault]uint64{}},
		{"none", nil, map[Fault]uint64{Lost: 10}},
		{"some missing", map[string][2]uint64{"d1": {7, 7}}, map[Fault]uint64{Lost: 3}},
		{"one twice", map[string][2]uint64{"d1": {11, 10}}, map[Fault]uint64{Duplicated: 1}},
		{"one missing, one twice", map[string][2]uint64{"d1": {10, 9}}, map[Fault]uint64{Lost: 1, Duplicated: 1}},
	} {
		a := judgeRows([]Device{sent()}, c.rows)
		if diff := cmp.Diff(c.want, faults(a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestPoisonAccount(t *testing.T) {
	t.Parallel()
	l := newLedger(time.Now(), []string{"d1"})
	for i := range 5 {
		l.Poisoned(fmt.Appendf(nil, "poison %d", i))
	}
	for _, s := range []string{"poison 0", "poison 0", "poison 3", "somebody else's"} {
		l.foundPoison([]byte(s))
	}
	if sent, found := l.poisonAccount(); sent != 5 || found != 2 {
		t.Errorf("sent %d, found %d; want 5, 2", sent, found)
	}
	tail := &tail{ledger: l, dlq: "doppel.dlq", changelog: newChangelog(boot, l, nil)}
	if got := faults(tail.judge(nil, 0)); got[Poison] != 3 {
		t.Errorf("findings %v, want 3 lost poisons", got)
	}
	if got := faults(tail.judge(nil, 3)); len(got) != 0 {
		t.Errorf("findings %v though 3 were never acknowledged", got)
	}
}

func TestSentAt(t *testing.T) {
	t.Parallel()
	start := time.Now()
	l := newLedger(start, []string{"a", "b"})
	l.Sent(1, 3, 2, start.Add(1500*time.Millisecond).UnixNano())
	for _, c := range []struct {
		id    string
		seq   uint64
		known bool
	}{{"b", 2, false}, {"b", 3, true}, {"b", 4, true}, {"b", 5, false}, {"b", 0, false}, {"a", 3, false}, {"c", 3, false}} {
		at, known := l.sentAt(c.id, c.seq)
		if known != c.known || known && at.Sub(start).Round(time.Millisecond) != 1500*time.Millisecond {
			t.Errorf("%s %d: %v, %v", c.id, c.seq, at.Sub(start), known)
		}
	}
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	d := Device{ID: "d1", Sum: device.Sum{Samples: 1000}, Labels: []device.Label{
		{Kind: device.Spike, Metric: "a", First: 100, Last: 102},
		{Kind: device.Shift, Metric: "a", First: 300, Last: 330},
		{Kind: device.Stuck, Metric: "b", First: 500, Last: 540},
		{Kind: device.Drift, Metric: "b", First: 980, Last: 1040}, // cut off by the end
	}}
	got := judgeAlerts([]Device{d}, []alarm{
		{"d1", "a", 101},
		{"d1", "a", 304}, // begin of the shift
		{"d1", "a", 332}, // its end
		{"d1", "a", 700}, // out of nothing
		{"d1", "b", 301}, // wrong metric
		{"d2", "a", 101}, // wrong device
	}, 100*time.Millisecond)
	precision, recall, delay := 2.0/5, 2.0/3, 400.0
	want := Alerts{
		TruePositive: 2, FalsePositive: 3, FalseNegative: 1, Precision: &precision, Recall: &recall, DelayMSP50: &delay,
		ByKind: map[string]Found{"spike": {Found: 1}, "shift": {Found: 1}, "stuck": {Missed: 1}, "drift": {}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if none := judgeAlerts([]Device{{}}, nil, 0); none.Precision != nil || none.Recall != nil || none.DelayMSP50 != nil {
		t.Errorf("nothing to judge gave %+v", none)
	}
}

func TestAlertWatch(t *testing.T) {
	t.Parallel()
	l := newLedger(time.Now().Add(-time.Second), []string{"d1"})
	l.Sent(0, 1, 10, time.Now().UnixNano())
	w := newAlertWatch(boot, l, nil)
	feed := func(id string, state doppelv1.AlertState, change func(a *doppelv1.Alert)) {
		a := &doppelv1.Alert{Id: id, Device: "d1", Metric: "a", State: state, Boot: boot, Seq: 7}
		if change != nil {
			change(a)
		}
		w.take(&doppelv1.WatchAlertsResponse{Event: &doppelv1.WatchAlertsResponse_Transition{Transition: a}}, time.Now())
	}
	feed("1", doppelv1.AlertState_FIRING, nil)
	feed("1", doppelv1.AlertState_FIRING, nil) // escalated
	feed("1", doppelv1.AlertState_RESOLVED, nil)
	feed("2", doppelv1.AlertState_FIRING, func(a *doppelv1.Alert) { a.Metric = "" }) // a timer's
	feed("3", doppelv1.AlertState_FIRING, func(a *doppelv1.Alert) { a.Boot = boot - 1 })
	feed("4", doppelv1.AlertState_FIRING, func(a *doppelv1.Alert) { a.Device = "d2" })
	if diff := cmp.Diff([]alarm{{"d1", "a", 7}}, w.seen(), cmp.AllowUnexported(alarm{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if w.latency.TotalCount() != 3 {
		t.Errorf("%d latencies, want 3", w.latency.TotalCount())
	}
}

func TestFindingsAreBounded(t *testing.T) {
	t.Parallel()
	a := &account{source: "twin"}
	for i := range 1000 {
		a.add(Finding{Lost, strconv.Itoa(i), 2, "x"})
	}
	if a.lost != 2000 || len(a.findings) != keep {
		t.Errorf("lost %d, %d findings", a.lost, len(a.findings))
	}
	if got := a.findings[0].String(); !strings.HasPrefix(got, "lost: 0: twin: x") {
		t.Errorf("finding %q", got)
	}
}
