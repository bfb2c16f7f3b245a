package placement

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	table := NewTable(7, []Member{
		{ID: "c", Incarnation: 3, Capacity: 1, Owned: []int32{0}},
		{ID: "a", Incarnation: 1, Capacity: 1, Owned: []int32{2, 1}},
		{ID: "b", Incarnation: 2},
	}, 3)
	want := &Table{
		Generation: 7,
		Members:    []Member{{ID: "a", Incarnation: 1, Capacity: 1}, {ID: "b", Incarnation: 2}, {ID: "c", Incarnation: 3, Capacity: 1}},
		Owners:     []int32{2, 0, 0},
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Fatalf("table (-want +got)\n%s", diff)
	}
	for p, want := range map[int32]string{-1: "", 0: "c", 1: "a", 2: "a", 3: ""} {
		if got, ok := table.Owner(p); got != want || ok != (want != "") {
			t.Errorf("owner of p%d: got %q, %v, want %q", p, got, ok, want)
		}
	}
	for id, want := range map[string][]int32{"a": {1, 2}, "b": nil, "c": {0}, "d": nil} {
		if diff := cmp.Diff(want, table.Owned(id)); diff != "" {
			t.Errorf("owned by %s (-want +got)\n%s", id, diff)
		}
		if got, want := table.Has(id), id != "d"; got != want {
			t.Errorf("has %s: got %v, want %v", id, got, want)
		}
	}
	if m, ok := table.Member("b"); !ok || m.Incarnation != 2 {
		t.Errorf("member b: got %+v, %v", m, ok)
	}
}

// Until there is a table nobody is known, and nobody needs to ask whether there is one.
func TestNoTable(t *testing.T) {
	var table *Table
	if id, ok := table.Owner(0); ok {
		t.Errorf("owner: got %q, want none", id)
	}
	if table.Has("a") || table.Owned("a") != nil {
		t.Error("a nil table knows somebody")
	}
	nobody := NewTable(1, nil, 1)
	if id, ok := nobody.Owner(0); ok {
		t.Errorf("owner among none: got %q, want none", id)
	}
}
