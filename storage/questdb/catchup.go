package questdb

import (
	"context"
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

// readBack makes rows of the valid records of p (R1-R3) from where it is up to to, as the partition
// did.
func (w *Writer) readBack(ctx context.Context, p *partition, to int64) error {
	rows := w.takeRows()
	rows.Partition, rows.From = p.id, p.pos
	v := host.Validator{Cursor: p.pos}
	err := w.log.Read(ctx, p.id, p.pos.Next, to, func(r host.LogRecord) error {
		err := w.events.Decode(r.Value, &w.event)
		if v.Valid(r.Offset, &w.event, err) {
			appendEvent(rows, r.Offset, r.Key, &w.event)
		} else {
			w.stats.Void.Add(1)
		}
		return nil
	})
	if err != nil {
		rows.Recycle(rows)
		return fmt.Errorf("read p%d from %d: %w", p.id, p.pos.Next, err)
	}
	rows.To = v.Cursor
	rows.To.Next = to // also past offsets that never will be
	w.stats.Reread.Add(uint64(len(rows.Samples)))
	w.hold(p, rows)
	return nil
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
