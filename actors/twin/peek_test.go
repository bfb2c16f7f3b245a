package twin_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/twin"
)

// TestPeek looks at twins that have lived through anything, and compares with the twins.
func TestPeek(t *testing.T) {
	rules := builtin(t)
	var peek twin.Peek // one for all of them
	values := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &checked{world: world{id: "d", tw: twin.New("d", 0), rules: rules}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.now += millis(rapid.SampledFrom([]int64{0, 1, 40, 300, 20_000}).Draw(t, "pause"))
			w.check(t, anyInput(t, w.now))
			if rapid.Bool().Draw(t, "owner looks") {
				w.look(t)
			}
			if !peek.Look("d", w.tw.Encode(nil), nil) {
				t.Fatal("a look fails")
			}
			values += comparePeek(t, &peek, w.tw)
		}
	})
	if values < 100 {
		t.Errorf("%d values compared", values)
	}
}

type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func comparePeek(t fatal, p *twin.Peek, tw *twin.Twin) (values int) {
	t.Helper()
	type front struct {
		id                                          string
		online, quarantined                         bool
		version, reportedVersion, digest, setDigest uint64
		lastSeen, created                           int64
		counters                                    twin.Counters
		open                                        int
	}
	got := front{p.ID(), p.Online(), p.Quarantined(), p.Version(), p.ReportedVersion(), p.Digest(), p.SetDigest(), p.LastSeen(), p.CreateTime(), p.Counters(), p.OpenCount()}
	want := front{tw.ID(), tw.Online(), tw.Quarantined(), tw.Version(), tw.ReportedVersion(), tw.Digest(), tw.SetDigest(), tw.LastSeen(), tw.CreateTime(), tw.Counters(), tw.OpenCount()}
	if got != want {
		t.Fatalf("a look says %+v, the twin is %+v", got, want)
	}
	if got, want := tw.OpenCount(), len(tw.OpenAlerts()); got != want {
		t.Fatalf("%d open alerts counted, %d listed", got, want)
	}
	for _, name := range []string{"m0", "m1", "m2", "pressure", "temperature", "vibration", "nosuch"} {
		x, ok := p.Value(name)
		want, wantOK := tw.Value(name)
		if ok != wantOK || ok && x != want {
			t.Fatalf("a look says that %s is %v, %v; it is %v, %v", name, x, ok, want, wantOK)
		}
		if ok {
			values++
		}
	}
	return values
}

// TestPeekLongLife looks at windows that are full, of decimals, of noise, and of both.
func TestPeekLongLife(t *testing.T) {
	rules := builtin(t)
	var peek twin.Peek
	tw := twin.New("pump-1", 1_795_341_600_000_000_000)
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	for seq := range uint64(2000) {
		fleetSample(&in, readings, seq+1)
		readings[1].Value = 1 / float64(seq+3)
		if seq%37 == 0 {
			readings[2].Value = -1 / float64(seq+3)
		}
		tw.Step(in.ReceivedAt, &in, rules, &out)
		if seq%5 != 0 {
			continue
		}
		if !peek.Look("pump-1", tw.Encode(nil), nil) {
			t.Fatal("a look fails")
		}
		if comparePeek(t, &peek, tw) != 3 {
			t.Fatal("not all values compared")
		}
	}
}

// TestPeekRefuses: what is no encoding, or one of a newer build, is left to Decode.
func TestPeekRefuses(t *testing.T) {
	encoded := twin.New("d", 1).Encode(nil)
	var peek twin.Peek
	if peek.Look("d", append([]byte{twin.EncodingVersion + 1}, encoded[1:]...), nil) {
		t.Error("a version that is not known was read")
	}
	for n := range len(encoded) - 2 {
		if peek.Look("d", encoded[:n], nil) && n < 20 {
			t.Errorf("%d bytes were read", n)
		}
	}
}

func BenchmarkPeek(b *testing.B) {
	rules := builtin(b)
	tw := twin.New("pump-1", 1_795_341_600_000_000_000)
	var in twin.Input
	var out twin.Effects
	readings := make([]twin.Reading, 3)
	for seq := range uint64(3000) {
		fleetSample(&in, readings, seq+1)
		tw.Step(in.ReceivedAt, &in, rules, &out)
	}
	encoded := tw.Encode(nil)
	var peek twin.Peek
	b.Run("front", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !peek.Look("pump-1", encoded, nil) {
				b.Fatal("not read")
			}
		}
	})
	b.Run("value", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !peek.Look("pump-1", encoded, nil) {
				b.Fatal("not read")
			}
			if _, ok := peek.Value("vibration"); !ok {
				b.Fatal("no value")
			}
		}
	})
}
