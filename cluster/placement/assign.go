package placement

import (
	"cmp"
	"slices"
)

// Member is one node as the assignment sees it.
type Member struct {
	ID string
	// Incarnation tells the runs of one node apart; the later one is greater.
	Incarnation uint64
	// Capacity is the weight of a member: shares are in proportion to it. 0 takes nothing (the node is
	// being drained), unless nobody takes anything: then all share alike.
	Capacity int
	// Owned are the partitions it had so far: a hint that keeps them where they are. Those that it should
	// rather keep than others come first.
	Owned []int32
}

// Assign shares the partitions 0 to partitions-1 out. The result has the index into members of each
// partition's owner, or -1 where there are no members.
//
// Every member gets its weighted share, rounded by the largest remainder, so it is within one of the
// exact share. Of equal remainders those who own the partition already come first; then no member lets
// go of a partition unless it has more than its share, and none gets one it did not own unless it has
// less: no plan with these shares moves fewer. The result depends on nothing but the arguments, and not
// on the order of members. Where two own the same, the greater Incarnation has it, then the smaller ID.
func Assign(members []Member, partitions int32) []int32 {
	owners := nobody(partitions)
	if len(members) == 0 {
		return owners
	}
	had := claims(members, partitions)
	owned := make([]int64, len(members))
	for _, m := range had {
		if m >= 0 {
			owned[m]++
		}
	}
	order := ranked(members)
	free := shares(members, order, owned, int64(len(owners)))

	// Everybody keeps what is within its share.
	for i := range members {
		for _, p := range members[i].Owned {
			if p < 0 || p >= partitions || had[p] != int32(i) || owners[p] >= 0 || free[i] == 0 {
				continue
			}
			owners[p] = int32(i)
			free[i]--
		}
	}
	// The rest goes where most is missing.
	for p, m := range owners {
		if m >= 0 {
			continue
		}
		to := order[0]
		for _, i := range order[1:] {
			if free[i] > free[to] {
				to = i
			}
		}
		owners[p] = int32(to)
		free[to]--
	}
	return owners
}

// nobody is partitions without owners.
func nobody(partitions int32) []int32 {
	owners := make([]int32, max(partitions, 0))
	for p := range owners {
		owners[p] = -1
	}
	return owners
}

// claims are the owners of partitions so far.
func claims(members []Member, partitions int32) []int32 {
	owners := nobody(partitions)
	for i := range members {
		for _, p := range members[i].Owned {
			if p < 0 || p >= partitions {
				continue
			}
			if was := owners[p]; was < 0 || prior(&members[i], &members[was]) {
				owners[p] = int32(i)
			}
		}
	}
	return owners
}

// prior reports whether a's claim goes before b's.
func prior(a, b *Member) bool {
	if a.Incarnation != b.Incarnation {
		return a.Incarnation > b.Incarnation
	}
	return a.ID < b.ID
}

// ranked is the indexes of members in an order that does not depend on theirs.
func ranked(members []Member) []int {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &members[a], &members[b]
		return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Incarnation, y.Incarnation))
	})
	return order
}

// shares is how many partitions each member gets; together they are all.
func shares(members []Member, order []int, owned []int64, partitions int64) []int64 {
	weights, total := weigh(members)
	share := make([]int64, len(members))
	remainder := make([]int64, len(members))
	left := partitions
	for i, w := range weights {
		share[i], remainder[i] = partitions*w/total, partitions*w%total
		left -= share[i]
	}
	first := slices.Clone(order)
	slices.SortStableFunc(first, func(a, b int) int {
		if c := cmp.Compare(remainder[b], remainder[a]); c != 0 {
			return c
		}
		return cmp.Compare(spare(b, owned, share), spare(a, owned, share))
	})
	for _, i := range first[:left] {
		share[i]++
	}
	return share
}

// spare is 1 for a member that would keep a partition more if its share were rounded up.
func spare(i int, owned, share []int64) int {
	if owned[i] > share[i] {
		return 1
	}
	return 0
}

// heaviest bounds a capacity, so that a product with a number of partitions fits.
const heaviest = 1 << 24

// weigh is the capacities, or ones if all are zero.
func weigh(members []Member) (weights []int64, total int64) {
	weights = make([]int64, len(members))
	for i := range members {
		weights[i] = int64(min(max(members[i].Capacity, 0), heaviest))
		total += weights[i]
	}
	if total == 0 {
		for i := range weights {
			weights[i] = 1
		}
		total = int64(len(weights))
	}
	return weights, total
}
