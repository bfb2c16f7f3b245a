package selection

import "slices"

// First keeps the first few of what it is offered, in an order, behind a place in it.
type First[T any] struct {
	order Order
	size  int
	after *Key
	items []Item[T]
	more  bool
	bound bool // items[size-1] is the worst that can still get in
}

// Item is something with the key it is sorted by.
type Item[T any] struct {
	Key   Key
	Value T
}

// NewFirst keeps the first size behind after; nil: behind nothing. Size 0 keeps all.
func NewFirst[T any](o Order, size int, after *Key) *First[T] {
	return &First[T]{order: o, size: size, after: after}
}

// Wants says whether something of this key would be kept. What is not wanted still counts as more.
func (f *First[T]) Wants(key Key) bool {
	if f.after != nil && f.order.Compare(key, *f.after) <= 0 {
		return false
	}
	if f.bound && f.order.Compare(key, f.items[f.size-1].Key) > 0 {
		f.more = true
		return false
	}
	return true
}

// Add offers something. Amortised it costs a comparison and, for what gets in, a share of a sort of
// twice the size.
func (f *First[T]) Add(key Key, value T) {
	if f.Wants(key) {
		f.Keep(key, value)
	}
}

// Keep is Add of what is wanted.
func (f *First[T]) Keep(key Key, value T) {
	f.items = append(f.items, Item[T]{Key: key, Value: value})
	if f.size > 0 && len(f.items) >= 2*f.size {
		f.cut()
	}
}

func (f *First[T]) cut() {
	slices.SortFunc(f.items, func(a, b Item[T]) int { return f.order.Compare(a.Key, b.Key) })
	if f.size > 0 && len(f.items) > f.size {
		f.more = true
		clear(f.items[f.size:])
		f.items = f.items[:f.size]
	}
	f.bound = f.size > 0 && len(f.items) == f.size
}

// Result is what was kept, in order, and whether there was more behind the last one.
func (f *First[T]) Result() (items []Item[T], more bool) {
	f.cut()
	return f.items, f.more
}
