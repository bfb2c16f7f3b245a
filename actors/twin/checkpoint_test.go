package twin_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/twin"
)

// TestCheckpoint: a checkpoint and the records behind it make the twin that was never interrupted, its
// duplicates included, wherever the checkpoint was taken.
func TestCheckpoint(t *testing.T) {
	rules := restless(t)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{id: "d", tw: twin.New("d", 0), rules: rules, now: millis(1_795_341_600_000)}
		steps := rapid.IntRange(1, 80).Draw(t, "steps")
		at := rapid.IntRange(0, steps-1).Draw(t, "checkpoint")
		var restored twin.Twin
		behind := 0
		for i := range steps {
			w.now += millis(rapid.SampledFrom([]int64{0, 1, 40, 300, 20_000}).Draw(t, "pause"))
			w.step(anyInput(t, w.now))
			if i != at {
				continue
			}
			hash, whole := w.tw.Hash(), w.tw.Encode(nil)
			if err := restored.Decode("d", w.tw.EncodeCheckpoint(nil), nil); err != nil {
				t.Fatal(err)
			}
			if w.tw.Hash() != hash || !bytes.Equal(w.tw.Encode(nil), whole) {
				t.Fatal("the checkpoint changed the twin")
			}
			behind = len(w.log)
		}
		var out twin.Effects
		for _, r := range w.log[behind:] {
			restored.AddDuplicates(r.duplicates)
			restored.Step(r.now, &r.in, rules, &out)
		}
		if restored.Hash() != w.tw.Hash() {
			t.Fatalf("restored:\n%s\nwant:\n%s", describe(&restored), describe(w.tw))
		}
		if got, want := restored.EncodeCheckpoint(nil), w.tw.EncodeCheckpoint(nil); !bytes.Equal(got, want) {
			t.Fatalf("restored twin (-want +got):\n%s", cmp.Diff(w.tw, &restored, inside))
		}
		restored.AddDuplicates(w.tw.TakeDuplicates())
		if got, want := restored.Counters(), w.tw.Counters(); got != want {
			t.Fatalf("counters %+v, want %+v", got, want)
		}
	})
}

// TestHashCoversQuarantine: a twin that takes nothing is another one than the same that does.
func TestHashCoversQuarantine(t *testing.T) {
	for _, tw := range examples(t) {
		was := tw.Quarantined()
		before := tw.Hash()
		var plain, closed twin.Twin
		for i, into := range []*twin.Twin{&plain, &closed} {
			encoded := tw.Encode(nil)
			const isQuarantined = 1 << 6
			encoded[1] = encoded[1]&^isQuarantined | byte(i)*isQuarantined
			if err := into.Decode(tw.ID(), encoded, nil); err != nil {
				t.Fatal(err)
			}
		}
		if plain.Quarantined() || !closed.Quarantined() || plain.Hash() == closed.Hash() {
			t.Errorf("%s: quarantined %v and %v, hashes %x and %x", tw.ID(), plain.Quarantined(), closed.Quarantined(), plain.Hash(), closed.Hash())
		}
		if want := map[bool]uint64{false: plain.Hash(), true: closed.Hash()}[was]; before != want {
			t.Errorf("%s: hash %x, decoded %x", tw.ID(), before, want)
		}
	}
}
