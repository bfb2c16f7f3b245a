package sequence

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const (
	boots   = 4
	numbers = 12
)

func genNum() *rapid.Generator[num] {
	return rapid.Custom(func(t *rapid.T) num {
		return num{rapid.Uint64Range(1, boots).Draw(t, "boot"), rapid.Uint64Range(1, numbers).Draw(t, "seq")}
	})
}

// TestModel runs the sequencer beside the dumb reference: every answer must be the same, and after
// every operation every number must stand in the same place.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sequencer[num]
		m, now := newModel(), int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"offer": func(t *rapid.T) {
				n := genNum().Draw(t, "n")
				now++
				p, was, out := offer(&s, n, now)
				wantP, wantWas, want := m.offer(n, now)
				if p != wantP || was != wantWas {
					t.Fatalf("offer %v: got %v, was missing %v, want %v, %v", n, p, was, wantP, wantWas)
				}
				equal(t, out, want)
			},
			"refuse": func(t *rapid.T) {
				n := genNum().Draw(t, "n")
				now++
				was, out := refuse(&s, n, now)
				wantWas, want := m.refuse(n, now)
				if was != wantWas {
					t.Fatalf("refuse %v: got was missing %v, want %v", n, was, wantWas)
				}
				equal(t, out, want)
			},
			"gap": func(t *rapid.T) {
				n := genNum().Draw(t, "n")
				if boot, seq, ok := s.Lowest(); ok && rapid.Bool().Draw(t, "as the owner does") {
					n = num{boot, seq}
				}
				missing, out := gap(&s, n.boot, n.seq)
				wantMissing, want := m.gap(n.boot, n.seq)
				if missing != wantMissing {
					t.Fatalf("gap %v: got %d missing, want %d", n, missing, wantMissing)
				}
				equal(t, out, want)
			},
			"": func(t *rapid.T) { compare(t, &s, m) },
		})
	})
}

func equal(t *rapid.T, got, want []num) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(num{}), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("taken (-want +got):\n%s", diff)
	}
}

func compare(t *rapid.T, s *Sequencer[num], m *model) {
	t.Helper()
	for boot := uint64(1); boot <= boots; boot++ {
		for seq := uint64(1); seq <= numbers+1; seq++ {
			if got, want := s.Place(boot, seq), m.place(num{boot, seq}); got != want {
				t.Fatalf("Place(%d, %d) = %v, want %v", boot, seq, got, want)
			}
		}
	}
	waiting := m.waiting()
	if got, want := s.Len(), len(waiting); got != want {
		t.Fatalf("Len() = %d, want %d", got, want)
	}
	if len(waiting) == 0 {
		return
	}
	if boot, seq, _ := s.Lowest(); waiting[0] != (num{boot, seq}) {
		t.Fatalf("Lowest() = %d, %d, want %v", boot, seq, waiting[0])
	}
	oldest := m.at[waiting[0]]
	for _, at := range m.at {
		oldest = min(oldest, at)
	}
	if got := s.Oldest(); got != oldest {
		t.Fatalf("Oldest() = %d, want %d", got, oldest)
	}
}

// TestNothingLost drives one boot with more holes than can be remembered: a number that never came
// is never called taken (protocol rule P3), and what is remembered stays bounded, rising, disjoint.
func TestNothingLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sequencer[num]
		came := map[num]bool{}
		seq := uint64(0)
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			n := num{1, seq + rapid.Uint64Range(1, 3).Draw(t, "skip")}
			if seq > 0 && rapid.IntRange(0, 3).Draw(t, "back") == 0 {
				n.seq = rapid.Uint64Range(1, seq).Draw(t, "seq")
			}
			seq = max(seq, n.seq)
			if rapid.IntRange(0, 9).Draw(t, "refuse") == 0 {
				refuse(&s, n, 0)
			} else {
				if p := s.Place(n.boot, n.seq); p == Taken && !came[n] {
					t.Fatalf("%v never came and is called taken", n)
				}
				offer(&s, n, 0)
				came[n] = true
			}
			if boot, low, ok := s.Lowest(); ok {
				gap(&s, boot, low)
			}
		}
		for n := uint64(1); n <= seq; n++ {
			if s.Place(1, n) == Taken && !came[num{1, n}] {
				t.Fatalf("%d never came and is called taken", n)
			}
		}
		if s.rest != nil {
			check(t, &s.rest.missing)
		}
	})
}

func check(t *rapid.T, s *spans) {
	t.Helper()
	if len(s.list) > maxSpans {
		t.Fatalf("%d spans", len(s.list))
	}
	floor := s.hi
	for i, sp := range s.list {
		if sp.lo < floor || sp.lo >= sp.hi || sp.label == taken || sp.label == unknown {
			t.Fatalf("span %d of %+v", i, s)
		}
		if i > 0 && sp.lo == floor && sp.label == s.list[i-1].label {
			t.Fatalf("spans %d and %d of %+v are one", i-1, i, s)
		}
		floor = sp.hi
	}
}

// TestState: equal histories have equal states, and every operation that changes a place changes the
// state.
func TestState(t *testing.T) {
	item := func(b []byte, n num) []byte { return append(b, byte(n.boot), byte(n.seq)) }
	rapid.Check(t, func(t *rapid.T) {
		var a, b Sequencer[num]
		for _, n := range rapid.SliceOf(genNum()).Draw(t, "numbers") {
			before := a.AppendState(nil, item)
			p, _, _ := offer(&a, n, 0)
			offer(&b, n, 0)
			after := a.AppendState(nil, item)
			if changed := !cmp.Equal(before, after); changed != (p != Taken && p != Stale) {
				t.Fatalf("offer %v, %v: state changed is %v", n, p, changed)
			}
			if diff := cmp.Diff(after, b.AppendState(nil, item)); diff != "" {
				t.Fatalf("state after the same numbers:\n%s", diff)
			}
		}
	})
}
