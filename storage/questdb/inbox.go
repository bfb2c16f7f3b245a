package questdb

import (
	"sync"
	"unsafe"

	"github.com/doppel-iot/doppel/actors/host"
)

// inbox is the bounded queue between the partitions and the writer. It also keeps the account of
// what was offered and what is done, taken or not.
type inbox struct {
	maxRows, maxBytes int
	wake              chan struct{} // capacity 1: something is there
	press             chan struct{} // capacity 1: a quarter of the room is taken

	mu          sync.Mutex
	open        bool // the writer is taking rows
	rows        []*host.Rows
	count, size int
	missed      map[int32]int64       // end of what was refused since the last take
	ends        map[int32]int64       // end of what was offered
	done        map[int32]host.Cursor // end of what QuestDB has
	refused     uint64                // offers refused

	// owned are the partitions rows are taken of; nil: of all. gone are those given up since the last
	// take, fresh those to begin with anew.
	owned, gone, fresh map[int32]bool
}

func newInbox(maxRows, maxBytes int, shared bool) *inbox {
	q := &inbox{
		maxRows: maxRows, maxBytes: maxBytes,
		wake:   make(chan struct{}, 1),
		press:  make(chan struct{}, 1),
		missed: map[int32]int64{}, ends: map[int32]int64{}, done: map[int32]host.Cursor{},
	}
	if shared {
		q.owned, q.gone, q.fresh = map[int32]bool{}, map[int32]bool{}, map[int32]bool{}
	}
	return q
}

// offer takes r unless there is no room or the inbox is closed.
func (q *inbox) offer(r *host.Rows) bool {
	n := len(r.Samples) + len(r.Alerts)
	size := len(r.Samples)*int(unsafe.Sizeof(host.Row{})) + len(r.Alerts)*int(unsafe.Sizeof(host.Transition{})) +
		cap(r.Readings)*int(unsafe.Sizeof(r.Readings[0]))

	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.takes(r.Partition) {
		return false
	}
	q.ends[r.Partition] = max(q.ends[r.Partition], r.To.Next)
	if !q.open || len(q.rows) > 0 && (q.count+n > q.maxRows || q.size+size > q.maxBytes) {
		q.missed[r.Partition] = max(q.missed[r.Partition], r.To.Next)
		q.refused++
		signal(q.wake)
		return false
	}
	q.rows = append(q.rows, r)
	q.count += n
	q.size += size
	signal(q.wake)
	if q.count >= q.maxRows/4 || q.size >= q.maxBytes/4 {
		signal(q.press)
	}
	return true
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take empties the inbox into rows, whose memory it takes over for what comes next, and calls missed
// for every partition with refused offers. It also says what partitions came and went.
func (q *inbox) take(rows []*host.Rows, missed func(p int32, end int64)) ([]*host.Rows, moves) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.rows
	clear(rows)
	q.rows, q.count, q.size = rows[:0], 0, 0
	for p, end := range q.missed {
		missed(p, end)
	}
	clear(q.missed)
	return taken, q.takeMoves()
}

// missedTo notes that partition p must be read from the log up to end.
func (q *inbox) missedTo(p int32, end int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.takes(p) {
		return
	}
	q.missed[p] = max(q.missed[p], end)
	signal(q.wake)
}

// extend notes that the log of partition p is known to reach to end.
func (q *inbox) extend(p int32, end int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.takes(p) {
		q.ends[p] = max(q.ends[p], end)
	}
}

// setOpen says whether rows are taken. Closing gives back what is queued: it will be read again.
func (q *inbox) setOpen(open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = open
	if open {
		return
	}
	for i, r := range q.rows {
		if q.takes(r.Partition) {
			q.missed[r.Partition] = max(q.missed[r.Partition], r.To.Next)
		}
		r.Recycle(r)
		q.rows[i] = nil
	}
	q.rows, q.count, q.size = q.rows[:0], 0, 0
}

// settle notes that QuestDB has everything of partition p below c.
func (q *inbox) settle(p int32, c host.Cursor) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.takes(p) {
		q.done[p] = c
	}
}

// unsettle notes that QuestDB has nothing any more.
func (q *inbox) unsettle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.done)
}

// settled is the last cursor that settle was told for partition p.
func (q *inbox) settled(p int32) (c host.Cursor, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok = q.done[p]
	return c, ok
}

// lag is the number of offsets between what was offered and what QuestDB has, by partition.
func (q *inbox) lag() map[int32]int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	lag := make(map[int32]int64, len(q.ends))
	for p, end := range q.ends {
		lag[p] = max(0, end-q.done[p].Next)
	}
	return lag
}
