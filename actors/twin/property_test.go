package twin_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/twin"
)

// TestShuffled: whatever the order of delivery and whatever comes twice, as long as nothing waits
// beyond the hold the twin is what it would have been with everything in order.
func TestShuffled(t *testing.T) {
	rules := builtin(t)
	rapid.Check(t, func(t *rapid.T) {
		shuffled := &world{id: "d", tw: twin.New("d", 0), rules: rules}
		ordered := &world{id: "d", tw: twin.New("d", 0), rules: rules}
		sent := uint64(0)
		for boot := uint64(1); boot <= rapid.Uint64Range(1, 3).Draw(t, "boots"); boot++ {
			n := rapid.Uint64Range(1, 60).Draw(t, "samples")
			var in []twin.Input
			for seq := uint64(1); seq <= n; seq++ {
				in = append(in, deviceSample(t, boot, seq))
				ordered.step(in[seq-1])
			}
			sent += n
			again := rapid.SliceOfN(rapid.IntRange(0, len(in)-1), 0, 10).Draw(t, "again")
			for _, i := range again {
				in = append(in, in[i])
			}
			for _, x := range rapid.Permutation(in).Draw(t, "delivered") {
				shuffled.now += millis(3)
				x.ReceivedAt = shuffled.now
				shuffled.step(x)
				if got, ok := shuffled.tw.Wake(shuffled.now, twin.SettledLimits()); ok {
					t.Fatalf("Wake gives %+v within the hold", got)
				}
			}
		}
		a, b := shuffled.tw, ordered.tw
		if a.Digest() != b.Digest() || a.SetDigest() != b.SetDigest() || a.Counters().Applied != sent || a.Counters().Late != 0 {
			t.Fatalf("shuffled:\n%s\nin order:\n%s", describe(a), describe(b))
		}
		if diff := cmp.Diff(b.AppendMetrics(nil), a.AppendMetrics(nil), equateNaNs); diff != "" {
			t.Fatalf("metrics (-in order +shuffled):\n%s", diff)
		}
		if got, want := shuffled.replay().Hash(), a.Hash(); got != want {
			t.Fatalf("replayed twin has hash %x, want %x", got, want)
		}
	})
}

var equateNaNs = cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })

func deviceSample(t *rapid.T, boot, seq uint64) twin.Input {
	in := twin.Input{Kind: twin.KindSample, Sample: twin.Sample{
		Numbered: true, Timed: true, Boot: boot, Seq: seq, Time: millis(int64(boot*1_000_000 + seq*100)),
		Readings: []twin.Reading{{Name: "x", Value: rapid.Float64Range(-5, 5).Draw(t, "x")}},
	}}
	if seq%7 == 0 {
		in.Sample.Readings = append(in.Sample.Readings, twin.Reading{Name: "y", Value: float64(seq)})
	}
	return in
}

// TestAnything gives a twin inputs of every kind in every order, plays its owner, and checks what
// must hold after each step.
func TestAnything(t *testing.T) {
	rules := builtin(t)
	rapid.Check(t, func(t *rapid.T) {
		w := &checked{world: world{id: "d", tw: twin.New("d", 0), rules: rules}}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			w.now += millis(rapid.SampledFrom([]int64{0, 1, 40, 300, 20_000}).Draw(t, "pause"))
			w.check(t, anyInput(t, w.now))
			if rapid.Bool().Draw(t, "owner looks") {
				w.look(t)
			}
		}
		if w.tw.Quarantined() {
			w.check(t, twin.Input{Kind: twin.KindReset, ReceivedAt: w.now})
		}
		w.now += millis(120_000)
		w.look(t)
		if held := w.tw.Counters().Held; held != 0 {
			t.Fatalf("%d still held after everything was due", held)
		}
		replayed := w.replay()
		if got, want := replayed.Hash(), w.tw.Hash(); got != want {
			t.Fatalf("replayed twin has hash %x, want %x:\n%s\nwant:\n%s", got, want, describe(replayed), describe(w.tw))
		}
	})
}

// checked is a world that keeps accounts of its own.
type checked struct {
	world
	received       uint64
	digest, set    uint64
	applied, lates uint64
}

// look does what Wake says until it says nothing.
func (w *checked) look(t *rapid.T) {
	for range 200 {
		before := w.tw.Hash()
		in, ok := w.tw.Wake(w.now, twin.SettledLimits())
		if due := w.tw.Due(); ok != (due != 0 && due <= w.now) {
			t.Fatalf("Wake says %v at %d, Due %d", ok, w.now, due)
		}
		if w.tw.Hash() != before {
			t.Fatal("Wake changed the twin")
		}
		if !ok {
			return
		}
		w.check(t, in)
		if w.out.Outcome != twin.Applied {
			t.Fatalf("what Wake proposed, %+v, was %s", in, outcomes[w.out.Outcome])
		}
	}
	t.Fatal("Wake never rests")
}

func (w *checked) check(t *rapid.T, in twin.Input) {
	version, hash, deleted := w.tw.Version(), w.tw.Hash(), w.tw.Deleted()
	w.step(in)
	if deleted && !w.tw.Deleted() { // back, with accounts of its own
		w.clear()
	}
	w.count(&in)
	logs := len(w.log)
	changed := w.out.Outcome.Logged()
	switch {
	case in.Kind == twin.KindAnchor:
		if !changed || w.tw.Hash() != hash || len(w.out.Applied)+len(w.out.Transitions) > 0 {
			t.Fatalf("an anchor was %s, with effects %+v", outcomes[w.out.Outcome], w.out)
		}
	case changed && (w.tw.Version() != version+1 || w.log[logs-1].now != w.now):
		t.Fatalf("%s: version %d after %d", outcomes[w.out.Outcome], w.tw.Version(), version)
	case !changed && w.tw.Hash() != hash:
		t.Fatalf("%s changed the twin: %+v", outcomes[w.out.Outcome], in)
	case !changed && len(w.out.Applied)+len(w.out.Transitions) > 0:
		t.Fatalf("%s with effects %+v", outcomes[w.out.Outcome], w.out)
	case (w.out.Outcome == twin.Refuse) != (w.out.Reason != "" && w.out.Detail != ""):
		t.Fatalf("%s with reason %q: %q", outcomes[w.out.Outcome], w.out.Reason, w.out.Detail)
	}
	for i := range w.out.Applied {
		w.fold(t, &in, &w.out.Applied[i])
	}
	if in.Kind == twin.KindDeleted && changed {
		if len(w.tw.OpenAlerts())+len(w.tw.AppendMetrics(nil))+len(w.tw.Tags()) > 0 || w.tw.DesiredVersion() > 0 {
			t.Fatalf("deleted:\n%s", describe(w.tw))
		}
		w.clear()
	}
	c := w.tw.Counters()
	if got := c.Applied + c.Late + c.Duplicate + c.DeadLettered + c.Held; got != w.received {
		t.Fatalf("counters %+v sum to %d, received %d", c, got, w.received)
	}
	if w.tw.Digest() != w.digest || w.tw.SetDigest() != w.set || c.Applied != w.applied || c.Late != w.lates {
		t.Fatalf("digests %x, %x, want %x, %x; counters %+v", w.tw.Digest(), w.tw.SetDigest(), w.digest, w.set, c)
	}
}

func (w *checked) clear() { w.received, w.digest, w.set, w.applied, w.lates = 0, 0, 0, 0, 0 }

// count adds what the input brought; a refused sample counts with its dead letter.
func (w *checked) count(in *twin.Input) {
	switch {
	case in.Kind == twin.KindRefused:
		w.received += uint64(in.Refused.Count)
	case in.Kind == twin.KindSample && w.out.Outcome != twin.Refuse:
		w.received++
	}
	if in.Kind == twin.KindSample && w.out.Outcome != twin.Refuse && w.out.Outcome != twin.Duplicate {
		w.set += contractHash(0, &in.Sample, in.ReceivedAt)
	}
}

// fold continues the digest by what the effects list.
func (w *checked) fold(t *rapid.T, in *twin.Input, a *twin.AppliedSample) {
	sm := twin.Sample{Numbered: a.Numbered, Timed: true, Boot: a.Boot, Seq: a.Seq, Time: a.Time}
	for _, r := range a.Readings {
		sm.Readings = append(sm.Readings, twin.Reading{Name: r.Name, Value: r.Value})
	}
	if a.Late {
		w.lates++
		if a.Count != w.applied+w.lates || !a.Own {
			t.Fatalf("late sample %+v, want count %d", a, w.applied+w.lates)
		}
	} else {
		w.applied++
		w.digest = contractHash(w.digest, &sm, 0)
		if a.Count != w.applied {
			t.Fatalf("sample %+v, want count %d", a, w.applied)
		}
	}
	if a.Own && (in.Kind != twin.KindSample || !slices.Equal(in.Sample.Readings, sm.Readings)) {
		t.Fatalf("own sample %+v of input %+v", a, in)
	}
}

// contractHash is h(d, s) of contract section 6, word for word.
func contractHash(d uint64, s *twin.Sample, receivedAt int64) uint64 {
	h := xxhash.New()
	le64 := func(v uint64) { _ = binary.Write(h, binary.LittleEndian, v) }
	le64(d)
	if s.Numbered {
		le64(s.Boot)
		le64(s.Seq)
	} else {
		le64(0)
		le64(0)
	}
	if s.Timed {
		le64(uint64(s.Time))
	} else {
		le64(uint64(receivedAt))
	}
	for _, r := range s.Readings {
		_, _ = h.WriteString(r.Name + "\x00")
		le64(math.Float64bits(r.Value))
	}
	return h.Sum64()
}

func anyInput(t *rapid.T, now int64) twin.Input {
	in := twin.Input{ReceivedAt: now - millis(rapid.SampledFrom([]int64{0, 0, 5, 700, -50}).Draw(t, "received before"))}
	number := func() (bool, uint64, uint64) {
		return rapid.IntRange(0, 9).Draw(t, "numbered") > 0, rapid.Uint64Range(1, 4).Draw(t, "boot"), rapid.Uint64Range(1, 12).Draw(t, "seq")
	}
	patch := func() []byte {
		return []byte(rapid.SampledFrom([]string{`{"a":1}`, `{"a":null,"b":{"c":2}}`, `{"b":{"d":3,"c":null}}`, `{}`, `{"a":`, `[]`}).Draw(t, "patch"))
	}
	switch rapid.IntRange(0, 19).Draw(t, "kind") {
	case 0:
		in.Kind = twin.KindTick
	case 1:
		in.Kind = twin.KindRefused
		in.Refused.Numbered, in.Refused.Boot, in.Refused.Seq = number()
		in.Refused.Count = rapid.Uint32Range(1, 3).Draw(t, "count")
		in.Refused.Reason = rapid.SampledFrom([]twin.Reason{twin.NotFinite, twin.StaleBoot}).Draw(t, "reason")
	case 2:
		in.Kind = twin.KindGap
		_, in.Gap.Boot, in.Gap.UpTo = number()
	case 3:
		in.Kind = twin.KindStatus
		in.Status = twin.Status{Online: rapid.Bool().Draw(t, "online")}
		in.Status.HasSession, in.Status.Boot, in.Status.Session = number()
		in.Status.HasBoot = in.Status.HasSession
	case 4, 5:
		in.Kind = twin.KindReported
		in.Reported.Numbered, in.Reported.Boot, in.Reported.Seq = number()
		in.Reported.Patch = patch()
	case 6:
		in.Kind = rapid.SampledFrom([]twin.Kind{twin.KindReset, twin.KindDeleted}).Draw(t, "end")
	case 18, 19:
		in.Kind = twin.KindDesired
		in.Desired.Patch = []byte(rapid.SampledFrom([]string{``, `{"a":1}`, `{"a":2.0,"b":{"c":2}}`, `{"b":null}`, `{"_sampling":{"interval_ms":100,"alert_interval_ms":10}}`, `{"a":`}).Draw(t, "desired"))
		if rapid.Bool().Draw(t, "tags") {
			in.Desired.Tags = map[string]string{rapid.SampledFrom([]string{"site", "line"}).Draw(t, "tag"): rapid.SampledFrom([]string{"a", "b"}).Draw(t, "value")}
			in.Desired.ReplaceTags = rapid.Bool().Draw(t, "replace")
		}
	case 7:
		in.Kind = rapid.SampledFrom([]twin.Kind{twin.KindAnchor, twin.KindReset, twin.KindReset, twin.KindQuarantined}).Draw(t, "rare")
	default:
		in.Kind = twin.KindSample
		sm := &in.Sample
		sm.Numbered, sm.Boot, sm.Seq = number()
		if sm.Timed = rapid.Bool().Draw(t, "timed"); sm.Timed {
			sm.Time = millis(rapid.Int64Range(0, 40).Draw(t, "time") * 50)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "metrics") {
			sm.Readings = append(sm.Readings, twin.Reading{Name: fmt.Sprintf("m%d", i), Value: rapid.Float64Range(-1, 1).Draw(t, "value")})
		}
		if rapid.IntRange(0, 3).Draw(t, "reports") == 0 {
			sm.Reported = patch()
		}
	}
	return in
}
