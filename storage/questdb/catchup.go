package questdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

// catchUp reads a piece of what each partition lacks and says whether there is more. Pieces are
// small, so that the live rows of other partitions are not kept waiting.
func (w *Writer) catchUp(ctx context.Context) (more bool, err error) {
	for _, p := range w.parts {
		if !p.behind() {
			continue
		}
		if w.full() {
			return true, nil
		}
		to := min(p.target, p.pos.Next+int64(max(w.cfg.FlushRows/2, 1)))
		if err := w.readBack(ctx, p, to); err != nil {
			return false, err
		}
		more = more || p.behind()
	}
	return more, nil
}

// errEnough ends reading when a flush is full.
var errEnough = errors.New("enough was read")

// readBack makes rows of the valid records of p (R1-R3) from where it is up to to, as the partition
// did. It reads less if that fills a flush already: records differ in size by thousands.
func (w *Writer) readBack(ctx context.Context, p *partition, to int64) error {
	rows := w.takeRows()
	rows.Partition, rows.From = p.id, p.pos
	v := host.Validator{Cursor: p.pos}
	whole := true // no offset was missing
	var void, lost uint64
	err := w.log.Read(ctx, p.id, p.pos.Next, to, func(r host.LogRecord) error {
		whole = whole && r.Offset == v.Next
		err := w.events.Decode(r.Value, &w.event)
		switch {
		case v.Valid(r.Offset, &w.event, err):
			appendEvent(rows, r.Offset, r.Key, &w.event)
		case v.Epoch == noEpoch:
			lost++
		default:
			void++
		}
		if len(w.items)+len(rows.Samples)+len(rows.Alerts) >= w.cfg.FlushRows ||
			w.values+len(rows.Readings) >= valuesPerRow*w.cfg.FlushRows {
			to = r.Offset + 1
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil || !whole || v.Next != to {
		if cut, err := w.checkStart(ctx, p, err); cut || err != nil {
			rows.Recycle(rows)
			return err
		}
	}
	w.stats.Void.Add(void)
	if lost > 0 {
		w.logger.Error("records stand in front of the first claim, their rows are not in questdb", "partition", p.id, "records", lost)
		w.stats.Lost.Add(lost)
	}
	rows.To = v.Cursor
	rows.To.Next = to // also past offsets that never will be
	w.stats.Reread.Add(uint64(len(rows.Samples)))
	w.hold(p, rows)
	return nil
}

// checkStart finds out whether offsets could not be read because retention was faster than we (cut):
// then p goes on behind them. cause is what reading them ended with, nil if they were just not there.
func (w *Writer) checkStart(ctx context.Context, p *partition, cause error) (cut bool, err error) {
	start, _, err := w.log.Bounds(ctx, p.id)
	switch {
	case err != nil:
		return false, fmt.Errorf("bounds of p%d: %w", p.id, err)
	case start > p.pos.Next:
		// What is held of p could not be read again.
		if err := w.flush(ctx); err != nil {
			return false, err
		}
		p.pos = w.lose(p.id, p.pos, start)
		p.committed = p.pos
		p.target = max(p.target, p.pos.Next)
		w.inbox.settle(p.id, p.pos)
		return true, nil
	case cause != nil:
		return false, fmt.Errorf("read p%d from %d: %w", p.id, p.pos.Next, cause)
	}
	return false, nil
}

// appendEvent adds the rows of a valid record.
func appendEvent(rows *host.Rows, offset int64, key []byte, ev *codec.Event) {
	if len(ev.Effects.Applied) == 0 && len(ev.Effects.Transitions) == 0 {
		return
	}
	device := string(key)
	for i := range ev.Effects.Applied {
		a := &ev.Effects.Applied[i]
		row := host.Row{Device: device, Boot: a.Boot, Seq: a.Seq, Time: a.Time, Late: a.Late}
		if !a.Numbered {
			row.Boot, row.Seq = 0, a.Count
		}
		from := len(rows.Readings)
		rows.Readings = append(rows.Readings, a.Readings...)
		row.Readings = rows.Readings[from:len(rows.Readings):len(rows.Readings)]
		rows.Samples = append(rows.Samples, row)
	}
	for i := range ev.Effects.Transitions {
		if ev.Effects.Transitions[i].Shadow {
			continue
		}
		rows.Alerts = append(rows.Alerts, host.Transition{
			Partition: rows.Partition, Offset: offset, Index: i, Device: device, Alert: ev.Effects.Transitions[i],
		})
	}
}

// takeRows gives empty rows out of those that were read back before.
func (w *Writer) takeRows() *host.Rows {
	if n := len(w.spare); n > 0 {
		r := w.spare[n-1]
		w.spare = w.spare[:n-1]
		return r
	}
	return &host.Rows{Recycle: func(r *host.Rows) {
		clear(r.Samples)
		clear(r.Alerts)
		clear(r.Readings)
		r.Samples, r.Alerts, r.Readings = r.Samples[:0], r.Alerts[:0], r.Readings[:0]
		if len(w.spare) < maxSpare {
			w.spare = append(w.spare, r)
		}
	}}
}

// maxSpare bounds the memory kept for the next time something must be read back.
const maxSpare = 4
