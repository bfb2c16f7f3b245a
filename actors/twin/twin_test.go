package twin_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/actors/twin"
)

// TestInOrderAllocatesNothing guards the path that nearly every sample takes.
func TestInOrderAllocatesNothing(t *testing.T) {
	rules := builtin(t)
	tw := twin.New("pump-1", 0)
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	seq := uint64(0)
	step := func() {
		seq++
		fleetSample(&in, readings, seq)
		tw.Step(in.ReceivedAt, &in, rules, &out)
	}
	for range 1000 {
		step()
	}
	if got := testing.AllocsPerRun(1000, step); got != 0 {
		t.Errorf("%v allocations a sample, want 0", got)
	}
	if got := tw.Counters().Applied; got != seq {
		t.Errorf("applied %d of %d samples", got, seq)
	}
}

// TestInputIsCopied: what waits does not share memory with an input that its owner uses again.
func TestInputIsCopied(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0)}
	in := twin.Input{Kind: twin.KindSample, Sample: twin.Sample{
		Numbered: true, Boot: 1, Seq: 2, Readings: []twin.Reading{{Name: "x", Value: 1}}, Reported: []byte(`{"a":1}`),
	}}
	w.step(in)
	in.Sample.Readings[0].Value = 99
	copy(in.Sample.Reported, `{"b":9}`)
	w.tw.Step(0, &twin.Input{Kind: twin.KindGap, Gap: twin.Gap{Boot: 1, UpTo: 2}}, nil, &w.out)
	if got := w.out.Applied[0]; got.Readings[0].Value != 1 || string(got.Reported) != `{"a":1}` {
		t.Errorf("got %s", applied(&got))
	}
	if got := string(w.tw.Reported()); got != `{"a":1}` {
		t.Errorf("reported %s", got)
	}
}

// TestTooManyMetrics: names count from acceptance on, also of samples that still wait, and a refused
// sample leaves none.
func TestTooManyMetrics(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0), rules: builtin(t)}
	wide := func(seq uint64, from, n int) twin.Input {
		in := twin.Input{Kind: twin.KindSample, Sample: twin.Sample{Numbered: true, Boot: 1, Seq: seq}}
		for i := range n {
			in.Sample.Readings = append(in.Sample.Readings, twin.Reading{Name: fmt.Sprintf("m%03d", from+i), Value: 1})
		}
		return in
	}
	for i, tt := range []struct {
		seq     uint64
		from, n int
		want    twin.Outcome
		metrics int // with a value
	}{
		{1, 0, 40, twin.Applied, 40},
		{3, 100, 20, twin.Held, 40},
		{2, 200, 5, twin.Refuse, 40},
		{2, 102, 18, twin.Applied, 60},
		{4, 200, 5, twin.Refuse, 60},
		{4, 200, 4, twin.Applied, 64},
		{5, 0, 1, twin.Applied, 64},
		{6, 999, 1, twin.Refuse, 64},
	} {
		w.step(wide(tt.seq, tt.from, tt.n))
		if got := w.out.Outcome; got != tt.want {
			t.Errorf("%d: got %s %s, want %s", i, outcomes[got], w.out.Detail, outcomes[tt.want])
		}
		if w.out.Outcome == twin.Refuse && w.out.Reason != twin.TooManyMetrics {
			t.Errorf("%d: reason %s", i, w.out.Reason)
		}
		if got := len(w.tw.AppendMetrics(nil)); got != tt.metrics {
			t.Errorf("%d: %d metrics with a value, want %d", i, got, tt.metrics)
		}
	}
	w.checkReplay(t)
}

// TestReportedSize: at most 64 KiB, reserved for what waits; replacing is not adding.
func TestReportedSize(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0)}
	patch := func(key string, kib int) []byte {
		return fmt.Appendf(nil, `{%q:%q}`, key, strings.Repeat("x", kib<<10))
	}
	report := func(p []byte) twin.Input {
		return twin.Input{Kind: twin.KindReported, Reported: twin.Reported{Patch: p}}
	}
	waits := func(seq uint64, p []byte) twin.Input {
		return twin.Input{Kind: twin.KindSample, Sample: twin.Sample{Numbered: true, Boot: 1, Seq: seq, Reported: p}}
	}
	for i, tt := range []struct {
		in   twin.Input
		want twin.Outcome
	}{
		{report(patch("a", 40)), twin.Applied},
		{report(patch("b", 30)), twin.Refuse},
		{report(patch("a", 45)), twin.Applied},
		{waits(2, patch("b", 10)), twin.Held},
		{report(patch("c", 10)), twin.Refuse},
		{waits(3, patch("a", 40)), twin.Refuse}, // nobody knows yet what it will replace
		{waits(3, patch("c", 10)), twin.Refuse},
		{report([]byte(`{"a":null}`)), twin.Applied},
		{report(patch("c", 50)), twin.Applied},
		{waits(1, []byte(`{}`)), twin.Applied},
		{report(patch("d", 10)), twin.Refuse},
		{report(patch("d", 2)), twin.Applied},
	} {
		w.now += millis(1)
		tt.in.ReceivedAt = w.now
		w.step(tt.in)
		if got := w.out.Outcome; got != tt.want {
			t.Errorf("%d: got %s %s, want %s", i, outcomes[got], w.out.Detail, outcomes[tt.want])
		}
		if w.out.Outcome == twin.Refuse && w.out.Reason != twin.TooLarge {
			t.Errorf("%d: reason %s", i, w.out.Reason)
		}
	}
	if got, limit := len(w.tw.Reported()), 64<<10; got > limit {
		t.Errorf("%d bytes reported", got)
	}
	for _, key := range []string{"b", "c", "d"} {
		if !bytes.Contains(w.tw.Reported(), fmt.Appendf(nil, "%q:", key)) {
			t.Errorf("reported lacks %q", key)
		}
	}
	w.checkReplay(t)
}

// TestReservationEnds: room kept for a numbered patch that waits is free again once it is applied.
func TestReservationEnds(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0)}
	for i, tt := range []struct {
		numbered bool
		seq      uint64
		key      string
		want     twin.Outcome
	}{
		{true, 2, "b", twin.Held},
		{false, 0, "c", twin.Refuse},
		{true, 1, "b", twin.Applied},
		{false, 0, "c", twin.Applied},
		{false, 0, "d", twin.Refuse},
	} {
		kib := 30
		if tt.want == twin.Refuse {
			kib = 40
		}
		w.step(twin.Input{Kind: twin.KindReported, Reported: twin.Reported{
			Numbered: tt.numbered, Boot: 1, Seq: tt.seq, Patch: fmt.Appendf(nil, `{%q:%q}`, tt.key, strings.Repeat("x", kib<<10)),
		}})
		if got := w.out.Outcome; got != tt.want {
			t.Errorf("%d: got %s %s, want %s", i, outcomes[got], w.out.Detail, outcomes[tt.want])
		}
	}
	w.checkReplay(t)
}

// TestHashSeesAlerts: twins that differ in nothing but what they remember of alerts differ in hash.
func TestHashSeesAlerts(t *testing.T) {
	quiet, loud := twin.New("d", 0), twin.New("d", 0)
	var out twin.Effects
	in := twin.Input{Kind: twin.KindStatus, ReceivedAt: 1}
	quiet.Step(1, &in, nil, &out)
	loud.Step(1, &in, builtin(t), &out)
	if len(out.Transitions) == 0 || describe(quiet) == describe(loud) || quiet.Hash() == loud.Hash() {
		t.Errorf("hash %x without alerts, %x with\n%s%s", quiet.Hash(), loud.Hash(), describe(quiet), describe(loud))
	}
}

// TestRemovedKeysAreBounded: removed keys are remembered against older patches, but not without end.
func TestRemovedKeysAreBounded(t *testing.T) {
	tw := twin.New("d", 0)
	var out twin.Effects
	report := func(receivedAt int64, p string) {
		in := twin.Input{Kind: twin.KindReported, ReceivedAt: receivedAt, Reported: twin.Reported{Patch: []byte(p)}}
		tw.Step(0, &in, nil, &out)
	}
	for i := range int64(1000) {
		report(1000+i, fmt.Sprintf(`{"k%d":null}`, i))
	}
	report(0, `{"k999":1}`)
	if got, want := string(tw.Reported()), `{}`; got != want {
		t.Errorf("a removed key revived by an older patch: %s, want %s", got, want)
	}
	report(0, `{"k0":1}`)
	if got, want := string(tw.Reported()), `{"k0":1}`; got != want {
		t.Errorf("a removed key too old to remember: %s, want %s", got, want)
	}
}

// TestTimedBounds: at most 1,024 samples without number wait; then the earliest goes.
func TestTimedBounds(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0)}
	for i := range int64(1024) {
		w.step(timedSample(10_000 - i))
		if w.out.Outcome != twin.Held || len(w.out.Applied) != 0 {
			t.Fatalf("sample %d: %s", i, effects(&w.out))
		}
	}
	w.step(timedSample(20_000))
	if got, want := effects(&w.out), "held [@8977 #1 x=1]"; got != want {
		t.Errorf("the 1,025th: got %s, want %s", got, want)
	}
	w.step(timedSample(8_977))
	if got, want := w.out.Outcome, twin.Duplicate; got != want {
		t.Errorf("the last applied again: got %s, want %s", outcomes[got], outcomes[want])
	}
	w.step(timedSample(8_976))
	if got, want := w.out.Outcome, twin.Late; got != want {
		t.Errorf("one before the last applied: got %s, want %s", outcomes[got], outcomes[want])
	}
	w.now = millis(500)
	w.step(twin.Input{Kind: twin.KindTick})
	if got, want := len(w.out.Applied), 1024; got != want {
		t.Errorf("released %d, want %d", got, want)
	}
	w.checkReplay(t)
}

// TestRepeated: (time, content) is known for 128 samples.
func TestRepeated(t *testing.T) {
	w := &world{id: "d", tw: twin.New("d", 0)}
	for i := range int64(128) {
		w.step(timedSample(i))
	}
	for i := range int64(128) {
		if w.step(timedSample(i)); w.out.Outcome != twin.Duplicate {
			t.Fatalf("repeated sample %d: %s", i, effects(&w.out))
		}
	}
	other := timedSample(5)
	other.Sample.Readings[0].Value = 2
	if w.step(other); w.out.Outcome != twin.Held {
		t.Errorf("same time, other content: %s", effects(&w.out))
	}
	if w.step(timedSample(0)); w.out.Outcome != twin.Held {
		t.Errorf("the 129th but last again: %s", effects(&w.out))
	}
	if got, want := w.tw.TakeDuplicates(), uint32(0); got != want {
		t.Errorf("duplicates since the last record: %d, want %d", got, want)
	}
	if got, want := w.log[128].duplicates, uint32(128); got != want {
		t.Errorf("the record behind the duplicates carries %d, want %d", got, want)
	}
	w.checkReplay(t)
}

func timedSample(ms int64) twin.Input {
	return twin.Input{Kind: twin.KindSample, Sample: twin.Sample{Timed: true, Time: millis(ms), Readings: []twin.Reading{{Name: "x", Value: 1}}}}
}
