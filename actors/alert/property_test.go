package alert

import (
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/state"
)

// ruleSets are rules that somebody changes, and silences that come and go.
func ruleSets(t *rapid.T) []*Set {
	rules := Builtin()
	dwell := rapid.SampledFrom([]time.Duration{0, 7 * time.Second, time.Minute}).Draw(t, "dwell")
	for i := range rules {
		rules[i].MinDwell = dwell
		if rules[i].Kind == Offline {
			rules[i].ForDuration = rapid.SampledFrom([]time.Duration{0, 20 * time.Second}).Draw(t, "offline_for")
		}
	}
	rules = append(rules,
		Rule{ID: "pending", Kind: ZScore, Metric: "a", ForSamples: 3, ForDuration: 5 * time.Second, MinDwell: dwell, Levels: []Level{
			{Severity: Warning, Enter: 4, Exit: 2}, {Severity: Critical, Enter: 6, Exit: 3},
		}},
		Rule{ID: "gap", Kind: Gap, MinDwell: dwell, Levels: []Level{{Severity: Warning}, {Severity: Critical, Enter: 50}}},
		Rule{ID: "rate", Kind: Rate, Metric: "b", MinDwell: dwell, Levels: []Level{{Severity: Info, Enter: 3, Exit: 1}}},
		Rule{
			ID: "slow", Kind: Threshold, Metric: "a", EscalateAfter: 9 * time.Second, DeescalateAfter: 5 * time.Second, FlapCount: 2, FlapWindow: 40 * time.Second,
			MinDwell: dwell, Levels: []Level{{Severity: Info, Enter: 21, Exit: 20}, {Severity: Warning, Enter: 24, Exit: 23}, {Severity: Critical, Enter: 26, Exit: 25}},
		},
		Rule{ID: "lag", Kind: Diverged, ForDuration: 11 * time.Second, MinDwell: dwell, EscalateAfter: time.Minute, FlapCount: 1, Levels: []Level{{Severity: Info}}},
		Rule{ID: "says", Kind: Expression, Expression: "x", Predicate: stated{}, ForDuration: 6 * time.Second, MinDwell: dwell, Levels: []Level{{Severity: Critical}}},
	)
	sets := make([]*Set, 3)
	for i := range sets {
		for j := range rules {
			rules[j].Version++
			rules[j].Mode = rapid.SampledFrom([]string{"", "", "", ModeShadow, ModeOff}).Draw(t, "mode")
		}
		var silences []Silence
		for _, severity := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"info", "warning", "critical", "all"}), 0, 2, rapid.ID).Draw(t, "silences") {
			end := 1000 + rapid.Int64Range(0, 1500).Draw(t, "end")
			silences = append(silences, Silence{ID: severity, Match: severe(severity), End: end * int64(time.Second)})
		}
		var err error
		if sets[i], err = NewSet(rules, silences...); err != nil {
			t.Fatal(err)
		}
	}
	return sets
}

// act draws one input and applies it to every book alike; the returned slices must be equal.
func act(t *rapid.T, s *Set, at int64, books []*Book) [][]Alert {
	kind := rapid.SampledFrom([]string{"sample", "sample", "seen", "seen", "seen", "presence", "gap", "tick", "back", "renumbered", "ack", "diverged", "says", "says", "reconcile", "retag"}).Draw(t, "kind")
	metric := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "metric")
	plain := float64(rapid.IntRange(-80, 80).Draw(t, "plain")) / 10
	held := rapid.Bool().Draw(t, "held")
	online := rapid.Bool().Draw(t, "online")
	missing := rapid.Uint64Range(1, 100).Draw(t, "missing")
	skew := int64(rapid.SampledFrom([]time.Duration{0, 0, time.Hour, -time.Hour}).Draw(t, "skew"))
	out := make([][]Alert, len(books))
	for i, b := range books {
		switch kind {
		case "sample":
			o := Observation{Metric: metric, Value: 20 + plain, Scored: true, Plain: plain, Score: plain, Stats: baseline.Stats{Count: 99}, Time: at + skew, Now: at}
			if held {
				o.Score = 0
			}
			b.Sample(s, device, &o, &out[i])
		case "seen":
			b.Seen(s, device, at, &out[i])
		case "presence":
			b.Presence(s, device, online, at, &out[i])
		case "gap":
			b.Gap(s, device, at, missing, &out[i])
		case "tick":
			b.Tick(s, device, at, &out[i])
		case "back":
			b.WentBack(s, device, at, Setback{Current: 100 + missing, Boot: missing, Seq: 1}, &out[i])
		case "renumbered":
			b.Renumbered(s, device, at, &out[i])
		case "ack":
			for _, a := range b.Open() {
				b.Acknowledge(s, device, &Acknowledgement{Alert: a.ID, By: "eva", Comment: metric}, at, &out[i])
			}
		case "diverged":
			b.Diverged(s, device, map[bool]int64{true: at}[online], at, &out[i])
		case "says":
			b.Evaluate(s, device, online, held, &Observation{Time: at, Now: at}, &out[i])
		case "reconcile":
			b.Reconcile(s, device, at, &out[i])
		case "retag":
			b.Retag(s, device, map[string]string{"site": metric}, at, &out[i])
		}
	}
	return out
}

// life is what the transitions of one rule and metric have told so far.
type life struct {
	state    State
	severity Severity
	id       uint64
	shown    Alert // but for when, and the tags
	site     string
}

func lifeOf(a *Alert) life {
	shown := *a
	shown.UpdateTime, shown.Tags = 0, nil
	return life{state: a.State, severity: a.Severity, id: a.ID, shown: shown, site: a.Tags["site"]}
}

func TestTransitionsAreLegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets := ruleSets(t)
		s := sets[0]
		var b, copied Book
		lives := map[[2]string]life{}
		ids := map[uint64]bool{}
		at := int64(1_000 * time.Second)
		for range rapid.IntRange(1, 150).Draw(t, "inputs") {
			at += int64(rapid.SampledFrom([]time.Duration{0, time.Second, time.Second, 4 * time.Second, 30 * time.Second}).Draw(t, "step"))
			var ticked []Alert
			for due := b.Due(); due != 0 && due <= at; due = b.Due() {
				checkTick(t, s, &b, due, &ticked)
				copied.Tick(s, device, due, new([]Alert))
			}
			// A book that is written down and read back before every input does the same.
			copied = again(t, &copied)
			if rapid.IntRange(0, 9).Draw(t, "change") == 0 {
				s = rapid.SampledFrom(sets).Draw(t, "set")
				for _, one := range []*Book{&b, &copied} {
					var emit []Alert
					one.Reconcile(s, device, at, &emit)
					if one == &b {
						ticked = append(ticked, emit...)
					}
				}
			}
			emitted := act(t, s, at, []*Book{&b, &copied})
			if diff := cmp.Diff(emitted[0], emitted[1]); diff != "" {
				t.Fatalf("a restored book differs:\n%s", diff)
			}
			for _, a := range append(ticked, emitted[0]...) {
				checkTransition(t, lives, ids, &a)
			}
			checkOpen(t, lives, &b)
			if diff := cmp.Diff(b.Memory(), copied.Memory()); diff != "" {
				t.Fatalf("memory of a restored book differs:\n%s", diff)
			}
			gone, stale := lives[[2]string{"builtin.offline", ""}], lives[[2]string{"builtin.stale", ""}]
			if gone.state == Firing && !gone.shown.Shadow && stale.state == Firing {
				t.Fatal("offline and stale fire together")
			}
		}
	})
}

// again is a book that was written down and read back, in both ways.
func again(t *rapid.T, b *Book) Book {
	var first, second Book
	first.SetTags(b.tags)
	second.SetTags(b.tags)
	first.Restore(b.Memory())
	in := state.NewReader(first.Encode(nil, 1e12), func(name []byte) string { return string(name) })
	if second.Decode(&in, 1e12); in.Err() != nil || in.Len() != 0 {
		t.Fatalf("decode: %v, %d bytes left", in.Err(), in.Len())
	}
	return second
}

// checkTick demands that a tick before its time does nothing, and that one in time settles what was due.
func checkTick(t *rapid.T, s *Set, b *Book, due int64, emit *[]Alert) {
	before, early := b.Memory(), []Alert(nil)
	b.Tick(s, device, due-1, &early)
	if diff := cmp.Diff(before, b.Memory()); diff != "" || len(early) > 0 {
		t.Fatalf("a tick before its time did something: %v\n%s", early, diff)
	}
	b.Tick(s, device, due, emit)
	if again := b.Due(); again != 0 && again <= due {
		t.Fatalf("due %d after the tick at %d", again, due)
	}
}

func checkTransition(t *rapid.T, lives map[[2]string]life, ids map[uint64]bool, a *Alert) {
	key := [2]string{a.Rule, a.Metric}
	was := lives[key]
	begins := was.state == 0 || was.state == Resolved
	legal := false
	switch a.State {
	case Pending:
		legal = (begins || was.state == Pending) && a.FireTime == 0
	case Firing:
		legal = begins || was.state == Pending || (was.state == Firing && was.shown.FireTime == a.FireTime)
	case Resolved:
		legal = !begins
	}
	if !legal {
		t.Fatalf("%v: from %+v to %+v", key, was, *a)
	}
	if begins == ids[a.ID] || (!begins && a.ID != was.id) {
		t.Fatalf("%v: id %x after %x, new %v", key, a.ID, was.id, begins)
	}
	if a.Reason == "" || a.UpdateTime == 0 || (a.State == Resolved) != (a.ResolveTime != 0) {
		t.Fatalf("%v: incomplete: %+v", key, *a)
	}
	if now := lifeOf(a); !begins && cmp.Equal(was.shown, now.shown) && was.site == now.site {
		t.Fatalf("%v: nothing changed: %+v", key, *a)
	}
	if was := was.shown; !begins && was.AcknowledgeTime != 0 && a.EscalateTime != was.EscalateTime {
		t.Fatalf("%v: raised although acknowledged: %+v", key, *a)
	}
	ids[a.ID] = true
	lives[key] = lifeOf(a)
}

func checkOpen(t *rapid.T, lives map[[2]string]life, b *Book) {
	got := map[[2]string]life{}
	for _, a := range b.Open() {
		got[[2]string{a.Rule, a.Metric}] = lifeOf(&a)
	}
	want := map[[2]string]life{}
	for key, l := range lives {
		if l.state != Resolved {
			if l.site != b.tags["site"] {
				t.Fatalf("%v: the newest transition has site %q, the twin %q", key, l.site, b.tags["site"])
			}
			l.site = ""
			want[key] = l
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(life{})); diff != "" {
		t.Fatalf("open alerts are not what the transitions say:\n%s", diff)
	}
}

func TestIdentify(t *testing.T) {
	// xxh64 of "pump-7\0builtin.zscore\0temperature\0" and two little-endian words.
	if got, want := identify(device, "builtin.zscore", "temperature", 3_000_000_000, 1), uint64(0xb7bdd6e0f4d4905f); got != want {
		t.Errorf("id %016x, want %016x", got, want)
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"pump-*", "pump-7", true},
		{"pump-*", "pump", false},
		{"*-7", "pump-7", true},
		{"p*p*7", "pump-p-7", true},
		{"p?mp", "pump", true},
		{"p?mp", "pmp", false},
		{"a*b", "acbc", false},
		{"", "", true},
		{"", "x", false},
		{"**x", "yx", true},
	} {
		if got := glob(tc.pattern, tc.name); got != tc.want {
			t.Errorf("glob(%q, %q) = %v", tc.pattern, tc.name, got)
		}
	}
}

func TestTags(t *testing.T) {
	s, err := NewSet([]Rule{{ID: "site", Kind: Threshold, Tags: map[string]string{"site": "brno"}, Levels: []Level{{Severity: Info, Enter: 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		tags map[string]string
		want int
	}{{nil, 0}, {map[string]string{"site": "praha"}, 0}, {map[string]string{"site": "brno", "line": "2"}, 1}} {
		var b Book
		var emit []Alert
		b.SetTags(tc.tags)
		b.Sample(s, device, &Observation{Metric: "x", Value: 2, Time: 1}, &emit)
		if len(emit) != tc.want {
			t.Errorf("tags %v: %d transitions, want %d", tc.tags, len(emit), tc.want)
		}
	}
}

func TestMinSamples(t *testing.T) {
	rules := Builtin()
	rules[2].MinSamples = 100
	s, err := NewSet(rules)
	if err != nil {
		t.Fatal(err)
	}
	var b Book
	var emit []Alert
	o := Observation{Metric: "x", Scored: true, Plain: 9, Score: 9, Stats: baseline.Stats{Count: 99}, Time: 1}
	b.Sample(s, device, &o, &emit)
	if len(emit) != 0 {
		t.Errorf("%d transitions with 99 samples, want none below 100", len(emit))
	}
	o.Stats.Count = 100
	b.Sample(s, device, &o, &emit)
	if len(emit) != 1 {
		t.Errorf("%d transitions with 100 samples, want 1", len(emit))
	}
}

// A quiet twin pays for alerts with little memory, no allocation and a few nanoseconds.
func TestQuietIsCheap(t *testing.T) {
	if got, limit := unsafe.Sizeof(Book{}), uintptr(96); got > limit {
		t.Errorf("a Book takes %d bytes, want at most %d", got, limit)
	}
	s, err := NewSet(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	var b Book
	var emit []Alert
	at := int64(time.Hour)
	o := Observation{Metric: "temperature", Scored: true, Plain: 3.9, Score: 3.9}
	if got := testing.AllocsPerRun(100, func() {
		at += int64(time.Second)
		b.Sample(s, device, &o, &emit)
		b.Seen(s, device, at, &emit)
		b.Tick(s, device, at, &emit)
	}); got != 0 || len(emit) != 0 {
		t.Errorf("%v allocations and %d transitions a message, want none", got, len(emit))
	}
}

func BenchmarkQuietSample(b *testing.B) {
	s, err := NewSet(Builtin())
	if err != nil {
		b.Fatal(err)
	}
	var book Book
	var emit []Alert
	o := Observation{Metric: "temperature", Scored: true, Plain: 1.5, Score: 1.5}
	b.ReportAllocs()
	for b.Loop() {
		book.Sample(s, device, &o, &emit)
	}
}

func BenchmarkQuietSeen(b *testing.B) {
	s, err := NewSet(Builtin())
	if err != nil {
		b.Fatal(err)
	}
	var book Book
	var emit []Alert
	b.ReportAllocs()
	for i := int64(1); b.Loop(); i++ {
		book.Seen(s, device, i, &emit)
	}
}
