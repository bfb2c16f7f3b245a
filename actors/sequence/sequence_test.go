package sequence

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// offer does with a number what its place asks for, as a caller would.
func offer(s *Sequencer[num], n num, now int64) (p Place, wasMissing bool, out []num) {
	p = s.Place(n.boot, n.seq)
	switch p {
	case InOrder, Behind:
		wasMissing = s.Accept(n.boot, n.seq)
	case Ahead:
		s.Hold(n.boot, n.seq, now, n)
	case Taken, Stale:
	}
	return p, wasMissing, drain(s)
}

func refuse(s *Sequencer[num], n num, now int64) (wasMissing bool, out []num) {
	wasMissing = s.Refuse(n.boot, n.seq, now)
	return wasMissing, drain(s)
}

func gap(s *Sequencer[num], boot, upTo uint64) (missing uint64, out []num) {
	for {
		n, ok := s.Gap(boot, upTo)
		if !ok {
			return missing, out
		}
		missing += n
		out = append(out, drain(s)...)
	}
}

func drain(s *Sequencer[num]) (out []num) {
	for {
		boot, seq, v, ok := s.Next()
		if !ok {
			return out
		}
		if v != (num{boot, seq}) {
			panic(fmt.Sprintf("took %v under the number %d/%d", v, boot, seq))
		}
		out = append(out, v)
	}
}

// TestTable is the table of contract section 2, and what happens at its edges.
func TestTable(t *testing.T) {
	type op struct {
		do      string // offer, refuse, gap
		n       num    // gap: boot and up to
		place   Place  // offer
		out     []num
		missing uint64 // gap: how many; else 1 if the number had been counted as missing
	}
	o := func(boot, seq uint64, p Place, out ...num) op {
		return op{do: "offer", n: num{boot, seq}, place: p, out: out}
	}
	g := func(boot, upTo, missing uint64, out ...num) op {
		return op{do: "gap", n: num{boot, upTo}, missing: missing, out: out}
	}
	r := func(boot, seq uint64, out ...num) op { return op{do: "refuse", n: num{boot, seq}, out: out} }
	wasMissing := func(o op) op { o.missing = 1; return o }

	for _, tt := range []struct {
		name string
		ops  []op
	}{
		{"in order", []op{o(0, 1, InOrder), o(0, 2, InOrder), o(0, 3, InOrder), o(0, 2, Taken), o(0, 3, Taken)}},
		{"held behind a hole", []op{
			o(1, 1, InOrder), o(1, 3, Ahead), o(1, 4, Ahead), o(1, 3, Taken), o(1, 2, InOrder, num{1, 3}, num{1, 4}), o(1, 4, Taken),
		}},
		{"gap, then late, then duplicate", []op{
			o(1, 1, InOrder), o(1, 4, Ahead), g(1, 4, 2, num{1, 4}), wasMissing(o(1, 2, Behind)), o(1, 2, Taken), wasMissing(o(1, 3, Behind)), o(1, 5, InOrder),
		}},
		{"gap over several holes", []op{
			o(1, 1, InOrder), o(1, 3, Ahead), o(1, 6, Ahead), g(1, 6, 3, num{1, 3}, num{1, 6}), g(1, 6, 0),
		}},
		{"never seen: the start is what is there", []op{
			o(2, 7, Ahead), o(2, 5, Ahead), g(2, 5, 0, num{2, 5}), o(2, 6, InOrder, num{2, 7}), o(2, 3, Behind), o(2, 3, Taken), o(1, 9, Stale),
		}},
		{"never seen: a boot before the start is stale", []op{
			o(3, 1, InOrder), o(2, 7, Stale),
		}},
		{"never seen: boots held in order", []op{
			o(2, 7, Ahead), o(3, 1, Ahead), o(3, 2, Ahead), g(3, 1, 0), g(3, 2, 0), g(2, 7, 0, num{2, 7}, num{3, 1}, num{3, 2}),
		}},
		{"new boot at once", []op{o(1, 1, InOrder), o(2, 1, InOrder), o(1, 2, Behind), o(1, 2, Taken), o(1, 1, Taken), o(2, 2, InOrder)}},
		{"new boot behind what the old one waits for", []op{
			o(1, 1, InOrder), o(1, 3, Ahead), o(2, 1, Ahead), o(2, 2, Ahead), o(1, 2, InOrder, num{1, 3}, num{2, 1}, num{2, 2}),
		}},
		{"new boot begins with a hole", []op{
			o(1, 1, InOrder), o(2, 3, Ahead), g(2, 3, 2, num{2, 3}), wasMissing(o(2, 1, Behind)), o(1, 4, Behind), o(1, 3, Behind), o(1, 4, Taken),
		}},
		{"two boots on", []op{
			o(1, 1, InOrder), o(3, 1, InOrder), o(2, 1, Stale), o(1, 2, Behind), o(5, 1, InOrder), o(1, 3, Stale), o(3, 1, Taken), o(3, 2, Behind), o(4, 1, Stale),
		}},
		{"missing of the previous boot", []op{
			o(1, 1, InOrder), o(1, 3, Ahead), g(1, 3, 1, num{1, 3}), o(2, 1, InOrder), wasMissing(o(1, 2, Behind)), o(1, 2, Taken),
		}},
		{"refused takes its place", []op{
			o(1, 1, InOrder), r(1, 2), o(1, 3, InOrder), o(1, 2, Behind), o(1, 2, Taken), r(1, 2), o(1, 2, Taken),
		}},
		{"refused ahead of the order", []op{
			o(1, 1, InOrder), r(1, 3), r(1, 3), o(1, 4, Ahead), o(1, 2, InOrder, num{1, 4}), o(1, 3, Behind), o(1, 3, Taken),
		}},
		{"corrected while ahead", []op{o(1, 1, InOrder), r(1, 3), o(1, 3, Ahead), o(1, 3, Taken), r(1, 3), o(1, 2, InOrder, num{1, 3})}},
		{"refused closes a hole", []op{o(1, 1, InOrder), o(1, 3, Ahead), r(1, 2, num{1, 3})}},
		{"refused is the first of a boot", []op{r(1, 1), o(1, 2, InOrder), o(1, 1, Behind), r(2, 1), o(2, 2, InOrder)}},
		{"refused was missing", []op{
			o(1, 1, InOrder), o(1, 5, Ahead), g(1, 5, 3, num{1, 5}), wasMissing(r(1, 3)), r(1, 3), o(1, 3, Behind), wasMissing(o(1, 2, Behind)), wasMissing(o(1, 4, Behind)),
		}},
		{"refused in the previous boot", []op{o(1, 1, InOrder), o(2, 1, InOrder), r(1, 3), o(1, 3, Behind), o(1, 2, Behind), r(1, 1), o(1, 1, Taken)}},
		{"a gap that is no gap", []op{o(2, 1, InOrder), g(2, 2, 0), g(1, 9, 0), o(2, 2, InOrder)}},
		{"largest number", []op{o(1, 1, InOrder), o(1, 1<<63-1, Ahead), g(1, 1<<63-1, 1<<63-3, num{1, 1<<63 - 1}), o(1, 1<<63-1, Taken)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Sequencer[num]
			for i, op := range tt.ops {
				var (
					place   Place
					missing uint64
					was     bool
					out     []num
				)
				switch op.do {
				case "offer":
					place, was, out = offer(&s, op.n, int64(i))
				case "refuse":
					was, out = refuse(&s, op.n, int64(i))
				case "gap":
					missing, out = gap(&s, op.n.boot, op.n.seq)
				}
				if was {
					missing = 1
				}
				got := fmt.Sprint(place, missing, out)
				if want := fmt.Sprint(op.place, op.missing, op.out); got != want {
					t.Fatalf("%d: %s %v: got place, missing, out %s, want %s", i, op.do, op.n, got, want)
				}
			}
		})
	}
}

// TestPermutations delivers one boot's numbers in every order, with a duplicate of each in turn: all
// must come out once and in order.
func TestPermutations(t *testing.T) {
	const n = 6
	for dup := uint64(1); dup <= n; dup++ {
		in := []num{{1, dup}}
		var want []num
		for seq := uint64(1); seq <= n; seq++ {
			in, want = append(in, num{1, seq}), append(want, num{1, seq})
		}
		permute(in, func(in []num) {
			var s Sequencer[num]
			var got []num
			duplicates := 0
			for i, v := range in {
				p, _, out := offer(&s, v, int64(i))
				switch p {
				case InOrder:
					got = append(got, v)
				case Taken:
					duplicates++
				case Ahead, Behind, Stale:
				}
				got = append(got, out...)
			}
			if duplicates != 1 || !slices.Equal(got, want) {
				t.Fatalf("in %v: got %v and %d duplicates, want %v and 1", in, got, duplicates, want)
			}
		})
	}
}

// TestPermutationsOfBoots delivers two boots in every order: each number once; what is in order comes
// in order; and only the older boot can come late.
func TestPermutationsOfBoots(t *testing.T) {
	all := []num{{1, 1}, {1, 2}, {1, 3}, {2, 1}, {2, 2}, {2, 3}, {2, 2}}
	permute(all, func(in []num) {
		var s Sequencer[num]
		var inOrder, behind, stale []num
		duplicates := 0
		for i, v := range in {
			p, _, out := offer(&s, v, int64(i))
			switch p {
			case InOrder:
				inOrder = append(inOrder, v)
			case Behind:
				behind = append(behind, v)
			case Stale:
				stale = append(stale, v)
			case Taken:
				duplicates++
			case Ahead:
			}
			inOrder = append(inOrder, out...)
		}
		for { // the owner gives up on what is missing
			boot, seq, ok := s.Lowest()
			if !ok {
				break
			}
			_, out := gap(&s, boot, seq)
			inOrder = append(inOrder, out...)
		}
		if !slices.IsSortedFunc(inOrder, func(a, b num) int {
			if a.less(b) {
				return -1
			}
			return 1
		}) {
			t.Fatalf("in %v: got %v in order", in, inOrder)
		}
		if len(inOrder)+len(behind)+len(stale) != len(all)-1 || duplicates != 1 {
			t.Fatalf("in %v: got %v, behind %v, stale %v, %d duplicates", in, inOrder, behind, stale, duplicates)
		}
		for _, v := range append(behind, stale...) {
			if v.boot != 1 {
				t.Fatalf("in %v: %v came behind", in, v)
			}
		}
	})
}

// permute calls fn with every order of in.
func permute(in []num, fn func([]num)) {
	var rec func(k int)
	rec = func(k int) {
		if k == len(in) {
			fn(in)
			return
		}
		for i := k; i < len(in); i++ {
			in[k], in[i] = in[i], in[k]
			rec(k + 1)
			in[k], in[i] = in[i], in[k]
		}
	}
	rec(0)
}

// TestForget fills one boot with more holes than are remembered: what was forgotten is open for
// ever, what is remembered is exact.
func TestForget(t *testing.T) {
	const holes = 100
	var s Sequencer[num]
	offer(&s, num{1, 1}, 0)
	for i := uint64(1); i <= holes; i++ { // 2, 4, 6 … are missing
		s.Hold(1, 2*i+1, 0, num{1, 2*i + 1})
		gap(&s, 1, 2*i+1)
	}
	forgotten := uint64(2 * (holes - maxSpans)) // the last one forgotten
	for seq := uint64(1); seq <= 2*holes+1; seq++ {
		want := Taken
		if seq%2 == 0 || seq > 1 && seq <= forgotten {
			want = Behind
		}
		if got := s.Place(1, seq); got != want {
			t.Errorf("Place(1, %d) = %v, want %v", seq, got, want)
		}
	}
	p, was, _ := offer(&s, num{1, forgotten}, 0)
	if p != Behind || was || s.Place(1, forgotten) != Behind {
		t.Errorf("a forgotten number: got place %v, was missing %v, then %v; want to accept it again and again", p, was, s.Place(1, forgotten))
	}
	p, was, _ = offer(&s, num{1, forgotten + 2}, 0)
	if p != Behind || !was || s.Place(1, forgotten+2) != Taken {
		t.Errorf("a remembered number: got place %v, was missing %v, then %v", p, was, s.Place(1, forgotten+2))
	}
}

// TestOldest follows the waiting time through partial drains.
func TestOldest(t *testing.T) {
	var s Sequencer[num]
	offer(&s, num{1, 1}, 0)
	offer(&s, num{1, 5}, 10)
	offer(&s, num{1, 3}, 20)
	offer(&s, num{2, 1}, 5)
	if got, want := s.Oldest(), int64(5); got != want {
		t.Errorf("oldest of three: got %d, want %d", got, want)
	}
	offer(&s, num{1, 2}, 30)
	if got, want := []int64{s.Oldest(), int64(s.Len())}, []int64{5, 2}; !cmp.Equal(got, want) {
		t.Errorf("oldest and length of two: %s", cmp.Diff(want, got))
	}
	offer(&s, num{1, 4}, 31)
	if got := s.Len(); got != 0 {
		t.Errorf("length after all came: got %d, want 0", got)
	}
	offer(&s, num{2, 3}, 40)
	if got, want := s.Oldest(), int64(40); got != want {
		t.Errorf("oldest of one: got %d, want %d", got, want)
	}
}
