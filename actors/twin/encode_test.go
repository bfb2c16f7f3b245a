package twin_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// inside compares twins field by field, private ones included. What sequencers and rings hold is left
// to Hash: equal ones may look different.
var inside = cmp.Options{
	cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.EquateEmpty(), equateNaNs,
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".rest" || p.Last().String() == ".timed" }, cmp.Ignore()),
}

// recode is the twin after a way through its encoding.
func recode(t interface{ Fatalf(string, ...any) }, tw *twin.Twin) *twin.Twin {
	encoded := tw.Encode(nil)
	kept := bytes.Clone(encoded)
	got := new(twin.Twin)
	if err := got.Decode(tw.ID(), encoded, nil); err != nil {
		t.Fatalf("decode: %v", err)
	}
	clear(encoded) // nothing of it may live on in the twin
	if got.Hash() != tw.Hash() || !bytes.Equal(got.Encode(nil), kept) {
		t.Fatalf("decoded twin:\n%s\nwant:\n%s\ndifference: %s", describe(got), describe(tw), cmp.Diff(tw, got, inside))
	}
	return got
}

// counted is an expression over a twin, and a silence of what is no less than a warning.
type counted struct{}

func (counted) Holds(of any) (bool, error) {
	switch v := of.(type) {
	case *twin.Twin:
		return v.Counters().Applied%3 == 1 && v.Online(), nil
	case *alert.View:
		return v.Alert.Severity >= alert.Warning && v.Tags["site"] != "b", nil
	default:
		return false, errors.New("something else")
	}
}

// restless are rules that a few inputs put into every state, as far as there were any when the examples were
// written.
func restless(tb testing.TB) *alert.Set { return rulesOf(tb, restlessRules) }

// lively are those of today.
func lively(tb testing.TB) *alert.Set {
	one := []alert.Level{{Severity: alert.Warning, Enter: 0.5, Exit: 0.2}}
	return rulesOf(tb, append(slices.Clone(restlessRules), []alert.Rule{
		{
			ID: "nags", Kind: alert.Threshold, Metric: "m0", EscalateAfter: time.Second, DeescalateAfter: 100 * time.Millisecond, FlapCount: 1, FlapWindow: 30 * time.Second,
			Levels: []alert.Level{{Severity: alert.Info, Enter: -0.5}, {Severity: alert.Warning, Enter: 0}},
		},
		{ID: "tried", Kind: alert.Threshold, Metric: "m1", Mode: alert.ModeShadow, Levels: one},
		{ID: "lags", Kind: alert.Diverged, ForDuration: time.Second, Levels: []alert.Level{{Severity: alert.Warning}}},
		{ID: "busy", Kind: alert.Expression, Expression: "counted", Predicate: counted{}, ForDuration: time.Second, Levels: []alert.Level{{Severity: alert.Info}}},
	}...), alert.Silence{ID: "night", Match: counted{}, End: millis(1_795_341_660_000)})
}

var restlessRules = []alert.Rule{
	{ID: "high", Kind: alert.Threshold, Levels: []alert.Level{{Severity: alert.Warning, Enter: 0.5, Exit: 0.2}}, ForSamples: 2},
	{ID: "fast", Kind: alert.Rate, Metric: "m1", Levels: []alert.Level{{Severity: alert.Warning, Enter: 0.5, Exit: 0.2}}},
	{ID: "odd", Kind: alert.ZScore, Levels: []alert.Level{{Severity: alert.Critical, Enter: 1, Exit: 0.5}}, MinSamples: 2},
	{ID: "gone", Kind: alert.Offline, Levels: []alert.Level{{Severity: alert.Info}}, ForDuration: time.Second, MinDwell: time.Second},
	{ID: "quiet", Kind: alert.Stale, Levels: []alert.Level{{Severity: alert.Warning}}, ForDuration: 15 * time.Second},
	{ID: "hole", Kind: alert.Gap, Levels: []alert.Level{{Severity: alert.Info}}},
	{ID: "back", Kind: alert.Numbering, Levels: []alert.Level{{Severity: alert.Info}}, Window: 10 * time.Second},
}

func rulesOf(tb testing.TB, rules []alert.Rule, silences ...alert.Silence) *alert.Set {
	tb.Helper()
	set, err := alert.NewSet(rules, silences...)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// TestEncoded: between any two inputs an encoding and its decoding change nothing: not what the twin
// shows, not what any later input gives.
func TestEncoded(t *testing.T) {
	rules := lively(t)
	rapid.Check(t, func(t *rapid.T) {
		plain := &world{id: "d", tw: twin.New("d", 0), rules: rules}
		coded := &world{id: "d", tw: twin.New("d", 0), rules: rules}
		give := func(in twin.Input) {
			plain.tw.Step(plain.now, &in, rules, &plain.out)
			coded.tw.Step(plain.now, &in, rules, &coded.out)
			// What is hashed and which observation was the last are scratch.
			scratch := cmp.FilterPath(func(p cmp.Path) bool {
				return p.Last().String() == ".scratch" || p.Last().String() == ".reading" || p.Last().String() == ".readings"
			}, cmp.Ignore())
			if diff := cmp.Diff(plain.out, coded.out, inside, scratch); diff != "" {
				t.Fatalf("effects of %+v (-plain +coded):\n%s", in, diff)
			}
		}
		base := rapid.SampledFrom([]int64{0, 1_795_341_600_000}).Draw(t, "since")
		plain.now = millis(base)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			plain.now += millis(rapid.SampledFrom([]int64{0, 1, 40, 300, 20_000}).Draw(t, "pause"))
			coded.tw = recode(t, coded.tw)
			give(anyInput(t, plain.now))
			if open := plain.tw.AllOpenAlerts(); len(open) > 0 && rapid.IntRange(0, 3).Draw(t, "acknowledge") == 0 {
				a := rapid.SampledFrom(open).Draw(t, "alert")
				give(twin.Input{Kind: twin.KindAcknowledged, ReceivedAt: plain.now, Acknowledgement: alert.Acknowledgement{Alert: a.ID, By: "eva", Comment: "mine"}})
			}
			if rapid.Bool().Draw(t, "owner looks") {
				if got, want := coded.tw.Due(), plain.tw.Due(); got != want {
					t.Fatalf("due at %d, want %d", got, want)
				}
				if in, ok := plain.tw.Wake(plain.now, twin.SettledLimits()); ok {
					give(in)
				}
			}
			if rapid.IntRange(0, 5).Draw(t, "logged") == 0 {
				if got, want := coded.tw.TakeDuplicates(), plain.tw.TakeDuplicates(); got != want {
					t.Fatalf("%d duplicates, want %d", got, want)
				}
			}
		}
		if diff := cmp.Diff(plain.tw, coded.tw, inside); diff != "" || plain.tw.Hash() != coded.tw.Hash() {
			t.Fatalf("twins (-plain +coded):\n%s", diff)
		}
	})
}

// TestDecodeReuses: a twin that served as scratch before is as good as a new one.
func TestDecodeReuses(t *testing.T) {
	scratch := twin.New("x", 5)
	for _, tw := range examples(t) {
		if err := scratch.Decode(tw.ID(), tw.Encode(nil), nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tw, scratch, inside); diff != "" {
			t.Errorf("%s (-encoded +decoded):\n%s", tw.ID(), diff)
		}
	}
}

// TestDecodeRefuses: what is no twin is refused in words that say why.
func TestDecodeRefuses(t *testing.T) {
	good := examples(t)[0].Encode(nil)
	newer := append([]byte{9}, good[1:]...)
	strange := append([]byte{good[0], 0xff}, good[2:]...)
	early := append([]byte{1, good[1] | 1<<6}, good[2:]...)
	for _, tc := range []struct {
		name, want string
		encoded    []byte
	}{
		{"nothing", "ends too early", nil},
		{"a newer version", "version 9 is not known, this build reads up to 2", newer},
		{"a flag of no version", "more flags", strange},
		{"a flag before its version", "version 1 with flags", early},
		{"half", "ends too early", good[:len(good)/2]},
		{"more", "3 bytes left over", append(bytes.Clone(good), 0, 0, 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := new(twin.Twin).Decode("pump-1", tc.encoded, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "twin pump-1") {
				t.Errorf("error %v, want one about pump-1 with %q", err, tc.want)
			}
		})
	}
}

// examples are twins with everything in them that a twin can have.
func examples(tb testing.TB) []*twin.Twin {
	tb.Helper()
	rules := restless(tb)
	start := int64(1_795_341_600_000)
	var all []*twin.Twin
	grow := func(id string, inputs ...func(w *world)) {
		w := &world{id: id, tw: twin.New(id, millis(start)), rules: rules, now: millis(start)}
		for _, give := range inputs {
			w.now += millis(10)
			give(w)
		}
		all = append(all, w.tw)
	}
	send := func(boot, seq uint64, reported string, readings ...twin.Reading) func(*world) {
		return func(w *world) {
			in := twin.Input{Kind: twin.KindSample, ReceivedAt: w.now, Sample: twin.Sample{
				Numbered: seq > 0, Timed: true, Boot: boot, Seq: seq, Time: w.now - millis(7), Readings: readings, Reported: []byte(reported),
			}}
			w.step(in)
		}
	}
	window := func(boot, from, to uint64) func(*world) {
		return func(w *world) {
			for seq := from; seq <= to; seq++ {
				w.now += millis(1000)
				send(boot, seq, "",
					twin.Reading{Name: "on", Value: float64(seq / 3 % 2)},
					twin.Reading{Name: "pressure", Value: math.Sin(float64(seq))},
					twin.Reading{Name: "temperature", Value: float64(seq*seq%97) / 10})(w)
			}
		}
	}
	report := func(boot, seq uint64, patch string) func(*world) {
		return func(w *world) {
			w.step(twin.Input{Kind: twin.KindReported, ReceivedAt: w.now, Reported: twin.Reported{Numbered: seq > 0, Boot: boot, Seq: seq, Patch: []byte(patch)}})
		}
	}
	online := func(on bool) func(*world) {
		return func(w *world) {
			w.step(twin.Input{Kind: twin.KindStatus, ReceivedAt: w.now, Status: twin.Status{Online: on, HasBoot: true, HasSession: true, Boot: 3, Session: 17}})
		}
	}
	gap := func(boot, upTo uint64) func(*world) {
		return func(w *world) {
			w.step(twin.Input{Kind: twin.KindGap, ReceivedAt: w.now, Gap: twin.Gap{Boot: boot, UpTo: upTo}})
		}
	}
	grow("numbered", online(true), window(2, 1, 90), send(2, 95, ""), gap(2, 95), window(3, 1, 700),
		report(0, 0, `{"fw":"1.2","žluťoučký \"kůň\"":{"a":[1,2.50]}}`), report(0, 0, `{"fw":null,"x":1}`),
		send(3, 702, `{"rssi":-70}`, twin.Reading{Name: "pressure", Value: 3}), send(3, 705, "", twin.Reading{Name: "late", Value: 1}),
		func(w *world) {
			w.step(twin.Input{Kind: twin.KindRefused, ReceivedAt: w.now, Refused: twin.Refused{Numbered: true, Boot: 3, Seq: 704, Count: 2}})
		},
		send(3, 5, ""), send(2, 92, ""), report(1, 1, `{"a":1}`), report(1, 4, `{"b":{"c":2}}`), online(false))
	grow("unnumbered", send(0, 0, "", twin.Reading{Name: "x", Value: 1}), send(0, 0, `{"mode":"eco"}`, twin.Reading{Name: "x", Value: 2.5}),
		func(w *world) { w.now += millis(900); w.step(twin.Input{Kind: twin.KindTick, ReceivedAt: w.now}) },
		send(0, 0, "", twin.Reading{Name: "x", Value: 9.75}))
	grow("new")
	grow("quarantined", window(2, 1, 40), send(2, 43, ""), func(w *world) {
		w.step(twin.Input{Kind: twin.KindQuarantined, ReceivedAt: w.now, Quarantine: twin.Quarantine{Reason: "index out of range"}})
	})
	return all
}

var update = flag.Bool("update", false, "write the golden files that do not exist yet: those of a new version of the encoding")

// TestGolden reads twins that older builds encoded, of every version there ever was. A difference means
// that stored twins would change their meaning: give the encoding a new version and keep reading the
// old one. A golden file is never written anew.
func TestGolden(t *testing.T) {
	for version := 1; version <= twin.EncodingVersion; version++ {
		for _, tw := range examples(t) {
			if tw.Quarantined() && version < 2 {
				continue
			}
			file := filepath.Join("testdata", "encoded", fmt.Sprintf("v%d-%s.hex", version, tw.ID()))
			if *update && version == twin.EncodingVersion {
				writeNew(t, file, fmt.Appendf(nil, "%016x\n%s", tw.Hash(), lines(tw.Encode(nil))))
			}
			encoded := golden(t, file, tw)
			if version == twin.EncodingVersion && !bytes.Equal(tw.Encode(nil), encoded) {
				t.Errorf("%s: the same twin is encoded differently now", file)
			}
		}
	}
}

// golden reads an encoded twin and holds it against the one that was encoded.
func golden(t *testing.T, file string, want *twin.Twin) (encoded []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hash, body, _ := strings.Cut(string(text), "\n")
	if _, err := fmt.Sscanf(strings.ReplaceAll(body, "\n", ""), "%x", &encoded); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var got twin.Twin
	if err := got.Decode(want.ID(), encoded, nil); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if diff := cmp.Diff(want, &got, inside); diff != "" {
		t.Errorf("%s (-encoded +decoded):\n%s", file, diff)
	}
	for name, tw := range map[string]*twin.Twin{"decoded": &got, "encoded": want} {
		if got := fmt.Sprintf("%016x", tw.Hash()); got != hash {
			t.Errorf("%s: the %s twin has hash %s, want %s", file, name, got, hash)
		}
	}
	return encoded
}

// writeNew writes a file unless there is one.
func writeNew(t *testing.T, file string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

func lines(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(len(b), 48)
		fmt.Fprintf(&s, "%x\n", b[:n])
		b = b[n:]
	}
	return s.String()
}

// FuzzDecode: hostile bytes give an error or a twin that takes any input; never a panic, never much
// more memory than they take themselves.
func FuzzDecode(f *testing.F) {
	for _, tw := range examples(f) {
		f.Add(tw.Encode(nil))
	}
	rules := restless(f)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var tw twin.Twin
		if err := tw.Decode("d", encoded, nil); err != nil {
			return
		}
		encodedAgain := tw.Encode(nil)
		var same twin.Twin
		if err := same.Decode("d", encodedAgain, nil); err != nil {
			t.Fatalf("what was decoded cannot be read again: %v", err)
		}
		live(&tw, rules)
	})
}

// live gives a twin one input of each kind, at times far apart.
func live(tw *twin.Twin, rules *alert.Set) {
	var out twin.Effects
	now := int64(0)
	take := func(in twin.Input) {
		in.ReceivedAt = now
		tw.Step(now, &in, rules, &out)
	}
	for _, passed := range []int64{0, millis(1), millis(100_000), math.MaxInt64 / 2} {
		now += passed
		boot, seq := tw.Boot(), tw.Seq()
		for _, place := range [][2]uint64{{boot, seq + 1}, {boot, seq + 9}, {boot, 1}, {boot + 1, 1}, {0, 3}} {
			s := twin.Sample{Numbered: true, Boot: place[0], Seq: place[1], Readings: []twin.Reading{{Name: "m0", Value: 1}}, Reported: []byte(`{"a":{"b":1}}`)}
			take(twin.Input{Kind: twin.KindSample, Sample: s})
			take(twin.Input{Kind: twin.KindRefused, Refused: twin.Refused{Numbered: true, Boot: place[0], Seq: place[1] + 3, Count: 1}})
			take(twin.Input{Kind: twin.KindReported, Reported: twin.Reported{Numbered: true, Boot: place[0], Seq: place[1], Patch: []byte(`{"a":null}`)}})
		}
		take(twin.Input{Kind: twin.KindSample, Sample: twin.Sample{Timed: true, Time: now}})
		take(twin.Input{Kind: twin.KindGap, Gap: twin.Gap{Boot: boot, UpTo: seq + 20}})
		take(twin.Input{Kind: twin.KindStatus, Status: twin.Status{Online: seq%2 == 0}})
		take(twin.Input{Kind: twin.KindTick})
		take(twin.Input{Kind: twin.KindQuarantined})
		take(twin.Input{Kind: twin.KindTick})
		take(twin.Input{Kind: twin.KindReset})
	}
	tw.AppendReported(nil)
	tw.AppendMetrics(nil)
	tw.OpenAlerts()
	tw.Hash()
}
