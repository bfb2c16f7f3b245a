package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAssign(t *testing.T) {
	member := func(id string, capacity int, owned ...int32) Member {
		return Member{ID: id, Incarnation: 1, Capacity: capacity, Owned: owned}
	}
	for _, c := range []struct {
		name       string
		members    []Member
		partitions int32
		want       []int32
	}{
		{"nobody", nil, 3, []int32{-1, -1, -1}},
		{"no partitions", []Member{member("a", 1)}, 0, []int32{}},
		{"alone", []Member{member("a", 1)}, 3, []int32{0, 0, 0}},
		{"from nothing", []Member{member("a", 1), member("b", 1)}, 4, []int32{0, 1, 0, 1}},
		{"stays", []Member{member("a", 1, 2, 3), member("b", 1, 0, 1)}, 4, []int32{1, 1, 0, 0}},
		{"join", []Member{member("a", 1, 0, 1, 2, 3), member("b", 1)}, 4, []int32{0, 0, 1, 1}},
		{"join, what it has first is kept", []Member{member("a", 1, 3, 1, 2, 0), member("b", 1)}, 4, []int32{1, 0, 1, 0}},
		{"a remainder stays where it is", []Member{member("a", 1, 0), member("b", 1, 1, 2)}, 3, []int32{0, 1, 1}},
		{"weights", []Member{member("a", 1), member("b", 3)}, 4, []int32{1, 1, 0, 1}},
		{"the largest remainder", []Member{member("a", 5, 0, 1), member("b", 3)}, 2, []int32{0, 1}},
		{"drained", []Member{member("a", 0, 0, 1), member("b", 1)}, 2, []int32{1, 1}},
		{"all drained", []Member{member("a", 0, 0), member("b", 0)}, 2, []int32{0, 1}},
		{"capacity below zero", []Member{member("a", -1), member("b", 1)}, 2, []int32{1, 1}},
		{"strange claims", []Member{member("a", 1, -1, 7, 1, 1), member("b", 1, 0)}, 2, []int32{1, 0}},
		{
			"both claim, the later run has it",
			[]Member{{ID: "a", Incarnation: 1, Capacity: 1, Owned: []int32{0, 1}}, {ID: "b", Incarnation: 2, Capacity: 1, Owned: []int32{0, 1}}},
			4,
			[]int32{1, 1, 0, 0},
		},
		{"both claim, the first has it", []Member{member("b", 1, 0, 1), member("a", 1, 0, 1)}, 4, []int32{1, 1, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Assign(c.members, c.partitions)); diff != "" {
				t.Errorf("owners (-want +got)\n%s", diff)
			}
		})
	}
}

// drawMembers are up to most members that may own anything, rightly or not.
func drawMembers(t *rapid.T, most int, partitions int32) []Member {
	ms := make([]Member, rapid.IntRange(1, most).Draw(t, "members"))
	for i := range ms {
		ms[i] = Member{
			ID:          fmt.Sprint("n", i),
			Incarnation: rapid.Uint64Range(1, 2).Draw(t, "incarnation"),
			Capacity:    rapid.IntRange(0, 5).Draw(t, "capacity"),
			Owned:       rapid.SliceOf(rapid.Int32Range(-1, partitions)).Draw(t, "owned"),
		}
	}
	return ms
}

func TestAssignIsBalanced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.Int32Range(0, 100).Draw(t, "partitions")
		ms := drawMembers(t, 8, partitions)
		count := counted(t, ms, Assign(ms, partitions))
		if s := unfair(ms, count, partitions); s != "" {
			t.Fatal(s)
		}
	})
}

// counted is how many partitions each member has; all must be somebody's.
func counted(t *rapid.T, ms []Member, owners []int32) []int {
	count := make([]int, len(ms))
	for p, m := range owners {
		if m < 0 || int(m) >= len(ms) {
			t.Fatalf("p%d has owner %d of %d", p, m, len(ms))
		}
		count[m]++
	}
	return count
}

// unfair says what is wrong with the counts: they must be the exact shares, rounded by the largest
// remainder.
func unfair(ms []Member, count []int, partitions int32) string {
	weight, total := make([]int, len(ms)), 0
	for i := range ms {
		weight[i] = ms[i].Capacity
		total += weight[i]
	}
	if total == 0 {
		for i := range weight {
			weight[i] = 1
		}
		total = len(weight)
	}
	leastUp, mostDown := total, -1
	for i, w := range weight {
		exact, remainder := int(partitions)*w/total, int(partitions)*w%total
		switch count[i] {
		case exact:
			mostDown = max(mostDown, remainder)
		case exact + 1:
			leastUp = min(leastUp, remainder)
		default:
			return fmt.Sprintf("n%d has %d of %d, its share is %d/%d", i, count[i], partitions, int(partitions)*w, total)
		}
	}
	if leastUp < mostDown {
		return fmt.Sprintf("remainder %d/%d is rounded up, %d/%d down", leastUp, total, mostDown, total)
	}
	return ""
}

func TestAssignIgnoresOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.Int32Range(1, 40).Draw(t, "partitions")
		ms := drawMembers(t, 6, partitions)
		other := rapid.Permutation(ms).Draw(t, "order")
		a, b := NewTable(1, ms, partitions), NewTable(1, other, partitions)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatalf("tables (-one order +another)\n%s", diff)
		}
	})
}

// Among all plans that are as fair, none leaves more partitions with those who have them.
func TestAssignMovesFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.Int32Range(1, 6).Draw(t, "partitions")
		ms := drawMembers(t, 4, partitions)
		had := claims(ms, partitions)
		stay := func(owners []int32) int {
			n := 0
			for p, m := range owners {
				if had[p] == m {
					n++
				}
			}
			return n
		}
		most := 0
		plan, count := make([]int32, partitions), make([]int, len(ms))
		var try func(p int)
		try = func(p int) {
			if p == len(plan) {
				if unfair(ms, count, partitions) == "" {
					most = max(most, stay(plan))
				}
				return
			}
			for m := range ms {
				plan[p] = int32(m)
				count[m]++
				try(p + 1)
				count[m]--
			}
		}
		try(0)
		if got := stay(Assign(ms, partitions)); got != most {
			t.Fatalf("%d partitions stay, could be %d", got, most)
		}
	})
}

// Of equals, one that comes takes its share from the others and one that goes leaves it to them;
// nothing else moves.
func TestAssignMovesOnlyWhatMustMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.Int32Range(1, 60).Draw(t, "partitions")
		was := NewTable(0, []Member{{ID: "n0", Capacity: 1}}, partitions)
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			ms := make([]Member, 0, len(was.Members)+1)
			for _, m := range was.Members {
				m.Owned = was.Owned(m.ID)
				ms = append(ms, m)
			}
			id := fmt.Sprint("n", rapid.IntRange(0, 5).Draw(t, "who"))
			joins := !was.Has(id)
			switch {
			case joins:
				ms = append(ms, Member{ID: id, Capacity: 1})
			case len(ms) == 1:
				continue
			case rapid.Bool().Draw(t, "drained"):
				ms[slices.IndexFunc(ms, func(m Member) bool { return m.ID == id })].Capacity = 0
			default:
				ms = slices.DeleteFunc(ms, func(m Member) bool { return m.ID == id })
			}
			now := NewTable(int64(step), ms, partitions)
			for p := range partitions {
				x, _ := was.Owner(p)
				y, _ := now.Owner(p)
				switch {
				case x == y:
				case joins && y != id:
					t.Fatalf("p%d went from %s to %s when %s joined", p, x, y, id)
				case !joins && x != id:
					t.Fatalf("p%d went from %s to %s when %s left", p, x, y, id)
				}
			}
			if joins && len(now.Owned(id)) != int(partitions)/len(ms) {
				t.Fatalf("%s joined and has %d of %d partitions, one of %d", id, len(now.Owned(id)), partitions, len(ms))
			}
			// Who was drained is gone by the next step.
			if m, ok := now.Member(id); ok && m.Capacity == 0 {
				for i := range ms {
					ms[i].Owned = now.Owned(ms[i].ID)
				}
				ms = slices.DeleteFunc(ms, func(m Member) bool { return m.ID == id })
				gone := NewTable(int64(step), ms, partitions)
				for p := range partitions {
					x, _ := now.Owner(p)
					if y, _ := gone.Owner(p); x != y {
						t.Fatalf("p%d went from %s to %s when %s, drained, left", p, x, y, id)
					}
				}
				now = gone
			}
			was = now
		}
	})
}

func TestAssignOfLargeCapacities(t *testing.T) {
	const most = int(^uint(0) >> 1)
	got := Assign([]Member{{ID: "a", Capacity: most}, {ID: "b", Capacity: most}}, 4)
	if diff := cmp.Diff([]int32{0, 1, 0, 1}, got); diff != "" {
		t.Errorf("owners (-want +got)\n%s", diff)
	}
}

func BenchmarkAssign(b *testing.B) {
	var ms []Member
	for i := range 50 {
		ms = append(ms, Member{ID: fmt.Sprint("n", i), Capacity: 1 + i%3})
	}
	for b.Loop() {
		Assign(ms, 1024)
	}
}
