package questdb

import (
	"context"
	"fmt"
)

// Own makes the rows of partition p this Writer's, with Config.Shared: it goes on where the committed
// cursor is, whoever left it there, and reads from the log what it was not offered. It does not wait.
func (w *Writer) Own(p int32) { w.inbox.own(p) }

// Release gives partition p up: what was taken is flushed and committed, if QuestDB lets us, and the
// next owner reads the rest from the log. It does not wait. Two owners for a while write the same rows.
func (w *Writer) Release(p int32) { w.inbox.release(p) }

// moves are the partitions that came and went since the last take.
type moves struct{ gone, fresh []int32 }

// move gives up what is gone and finds the cursors of what is fresh.
func (w *Writer) move(ctx context.Context, m moves) error {
	if err := w.leave(ctx, m.gone); err != nil {
		w.inbox.refresh(m.fresh)
		return err
	}
	if len(m.fresh) == 0 {
		return nil
	}
	stored, err := w.cursors.Load(ctx)
	if err != nil {
		w.inbox.refresh(m.fresh)
		return fmt.Errorf("load cursors: %w", err)
	}
	for _, id := range m.fresh {
		delete(w.parts, id)
	}
	w.stored = stored
	return nil
}

// leave flushes what is held of partitions that are gone and forgets them, whatever becomes of it.
func (w *Writer) leave(ctx context.Context, gone []int32) (err error) {
	for _, id := range gone {
		if p := w.parts[id]; p != nil && p.pos != p.committed {
			err = w.flush(ctx)
			break
		}
	}
	for _, id := range gone {
		delete(w.parts, id)
	}
	return err
}

// beginAnew takes nothing for granted of what was known: while QuestDB was away others may have
// written, or found it without its tables.
func (w *Writer) beginAnew() {
	clear(w.parts)
	w.stored = nil
	w.inbox.beginAnew()
}

// takes says whether rows of p are wanted. Under mu.
func (q *inbox) takes(p int32) bool { return q.owned == nil || q.owned[p] }

func (q *inbox) owns(p int32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takes(p)
}

func (q *inbox) own(p int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.owned == nil || q.owned[p] {
		return
	}
	q.owned[p] = true
	q.begin(p)
	signal(q.wake)
}

// begin has p read from its committed cursor to the end of the log: rows may have been offered before
// we were told that it is ours. Under mu.
func (q *inbox) begin(p int32) {
	q.fresh[p] = true
	q.missed[p] = toEnd
}

func (q *inbox) release(p int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.owned == nil || !q.owned[p] {
		return
	}
	delete(q.owned, p)
	delete(q.fresh, p)
	delete(q.missed, p)
	delete(q.ends, p)
	delete(q.done, p)
	q.gone[p] = true
	signal(q.wake)
}

func (q *inbox) beginAnew() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.owned {
		q.begin(p)
	}
}

// refresh puts partitions back that could not be begun with.
func (q *inbox) refresh(fresh []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range fresh {
		if q.owned[p] {
			q.begin(p)
		}
	}
}

// takeMoves is what changed since the last time. Under mu.
func (q *inbox) takeMoves() (m moves) {
	for p := range q.gone {
		m.gone = append(m.gone, p)
	}
	for p := range q.fresh {
		m.fresh = append(m.fresh, p)
	}
	clear(q.gone)
	clear(q.fresh)
	return m
}
