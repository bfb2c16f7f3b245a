package sequence

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/state"
)

func appendNum(b []byte, n num) []byte { return binary.AppendUvarint(b, n.boot<<32|n.seq) }

func decode(b []byte) (*Sequencer[num], error) {
	in := state.NewReader(b, nil)
	s := new(Sequencer[num])
	s.Decode(&in, func(in *state.Reader, boot, seq uint64) num {
		n := in.Uint()
		if n != boot<<32|seq {
			in.Fail("value %d of %d/%d", n, boot, seq)
		}
		return num{boot, seq}
	})
	if in.Err() == nil && in.Len() > 0 {
		in.Fail("%d bytes left over", in.Len())
	}
	return s, in.Err()
}

// TestEncode: a way through the encoding between any two operations changes no answer.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var plain Sequencer[num]
		coded := new(Sequencer[num])
		for now := range rapid.Int64Range(1, 200).Draw(t, "operations") {
			encoded := coded.Encode(nil, appendNum)
			var err error
			if coded, err = decode(encoded); err != nil {
				t.Fatalf("decode: %v", err)
			}
			if got, want := coded.AppendState(nil, appendNum), plain.AppendState(nil, appendNum); !bytes.Equal(got, want) {
				t.Fatalf("state\n%x, want\n%x", got, want)
			}
			if plain.Len() > 0 && plain.Oldest() != coded.Oldest() {
				t.Fatalf("oldest %d, want %d", coded.Oldest(), plain.Oldest())
			}
			n := num{rapid.Uint64Range(1, 3).Draw(t, "boot"), rapid.Uint64Range(1, 400).Draw(t, "seq")}
			switch rapid.IntRange(0, 5).Draw(t, "operation") {
			case 0:
				refuse(&plain, n, now)
				refuse(coded, n, now)
			case 1:
				gap(&plain, n.boot, n.seq)
				gap(coded, n.boot, n.seq)
			default:
				place, _, _ := offer(&plain, n, now)
				if got, _, _ := offer(coded, n, now); got != place {
					t.Fatalf("%v stands at %v, want %v", n, got, place)
				}
			}
		}
	})
}

// TestDecodeRefuses what no sequencer can be: it would never come to rest, or worse.
func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bytes []byte
	}{
		{"nothing", nil},
		{"a boot without a start", []byte{1, 0, 0}},
		{"unknown contents", []byte{1, 5, 8}},
		{"missing numbers above the next", []byte{1, 5, hasMissing, 0, 1, 3, 9, byte(given)}},
		{"missing numbers that are taken", []byte{1, 5, hasMissing, 0, 1, 1, 1, byte(taken)}},
		{"more of them than are left", []byte{1, 5, hasMissing, 0, 60, 1, 1, byte(given)}},
		{"a previous boot that is not", []byte{1, 5, hasPast, 1, 3, 0, 0}},
		{"nothing held", []byte{1, 5, hasHeld, 0}},
		{"the next one held", []byte{1, 5, hasHeld, 1, 1, 0, 5<<1 | 1}},
		{"the first of the next boot held", []byte{1, 5, hasHeld, 1, 2, 0, 1<<1 | 1}},
		{"held in rising order", []byte{1, 5, hasHeld, 2, 1, 0, 7<<1 | 1, 1, 0, 8<<1 | 1}},
		{"held of an older boot", []byte{2, 5, hasHeld, 1, 1, 0, 7<<1 | 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := decode(tc.bytes); err == nil {
				t.Error("no error")
			}
		})
	}
	if s, err := decode([]byte{1, 5, hasHeld, 1, 1, 0, 7<<1 | 1}); err != nil || s.Len() != 1 {
		t.Errorf("a place held behind the next one: %v", err)
	}
}
