package placement

import (
	"cmp"
	"slices"
)

// Table says which node is to own each partition. It is a hint: who owns a partition is decided by its
// log. A Table is not changed once it is shared. The methods of a nil one know nobody.
type Table struct {
	// Generation grows with every table of a cluster.
	Generation int64
	// Members are sorted by ID; they have no Owned.
	Members []Member
	// Owners has the index into Members for each partition; -1: nobody.
	Owners []int32
}

// NewTable shares the partitions out among members by Assign. IDs must be distinct.
func NewTable(generation int64, members []Member, partitions int32) *Table {
	t := &Table{Generation: generation, Members: slices.Clone(members)}
	slices.SortFunc(t.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	t.Owners = Assign(t.Members, partitions)
	for i := range t.Members {
		t.Members[i].Owned = nil
	}
	return t
}

// Owner is the node that is to own p; ok is false if nobody is.
func (t *Table) Owner(p int32) (id string, ok bool) {
	if t == nil || p < 0 || int(p) >= len(t.Owners) {
		return "", false
	}
	m := t.Owners[p]
	if m < 0 || int(m) >= len(t.Members) {
		return "", false
	}
	return t.Members[m].ID, true
}

// Member finds a member by its id.
func (t *Table) Member(id string) (m Member, ok bool) {
	if t == nil {
		return Member{}, false
	}
	i, ok := slices.BinarySearchFunc(t.Members, id, func(m Member, id string) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return Member{}, false
	}
	return t.Members[i], true
}

// Has reports whether a node is a member.
func (t *Table) Has(id string) bool {
	_, ok := t.Member(id)
	return ok
}

// Owned are the partitions that a node is to own, ascending.
func (t *Table) Owned(id string) []int32 {
	if t == nil {
		return nil
	}
	var ps []int32
	for p, m := range t.Owners {
		if m >= 0 && int(m) < len(t.Members) && t.Members[m].ID == id {
			ps = append(ps, int32(p))
		}
	}
	return ps
}
