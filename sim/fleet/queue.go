package fleet

// queue is a min-heap of things by the time they are due.
type queue[T any] struct {
	items []due[T]
}

type due[T any] struct {
	at    int64 // unix nanoseconds
	value T
}

func (q *queue[T]) empty() bool { return len(q.items) == 0 }

// top is the earliest; the queue must not be empty.
func (q *queue[T]) top() *due[T] { return &q.items[0] }

func (q *queue[T]) push(at int64, v T) {
	q.items = append(q.items, due[T]{at: at, value: v})
	for i := len(q.items) - 1; i > 0; {
		up := (i - 1) / 2
		if q.items[up].at <= q.items[i].at {
			return
		}
		q.items[up], q.items[i] = q.items[i], q.items[up]
		i = up
	}
}

// moveTop gives the earliest another time.
func (q *queue[T]) moveTop(at int64) {
	q.items[0].at = at
	q.sink(0)
}

// set gives the one at place i another time.
func (q *queue[T]) set(i int, at int64) {
	q.items[i].at = at
	for i > 0 && q.items[(i-1)/2].at > at {
		up := (i - 1) / 2
		q.items[up], q.items[i] = q.items[i], q.items[up]
		i = up
	}
	q.sink(i)
}

func (q *queue[T]) sink(i int) {
	for {
		low := 2*i + 1
		if low >= len(q.items) {
			return
		}
		if low+1 < len(q.items) && q.items[low+1].at < q.items[low].at {
			low++
		}
		if q.items[i].at <= q.items[low].at {
			return
		}
		q.items[i], q.items[low] = q.items[low], q.items[i]
		i = low
	}
}

func (q *queue[T]) pop() T {
	v := q.items[0].value
	last := len(q.items) - 1
	q.items[0] = q.items[last]
	q.items[last] = due[T]{}
	q.items = q.items[:last]
	if last > 0 {
		q.moveTop(q.items[0].at)
	}
	return v
}
