package questdb

import (
	"context"
	"fmt"
	"math"

	"github.com/doppel-iot/doppel/actors/host"
)

// partition is how far the writer is with one partition: committed <= pos.Next <= target.
type partition struct {
	id        int32
	pos       host.Cursor // everything below is among the rows to flush, or flushed
	committed host.Cursor // QuestDB has everything below
	target    int64       // known to be released and not to come by the inbox: read up to here
}

// noEpoch is in force until the first Claim: no record carries it.
const noEpoch = math.MaxUint64

// toEnd stands for the present end of the log as a target.
const toEnd = math.MaxInt64

// extend moves the target of p on to end.
func (w *Writer) extend(ctx context.Context, p *partition, end int64) error {
	if end == toEnd {
		var err error
		if _, end, err = w.log.Bounds(ctx, p.id); err != nil {
			return fmt.Errorf("bounds of p%d: %w", p.id, err)
		}
	}
	p.target = max(p.target, end)
	return nil
}

// behind says whether rows of p must be read from the log.
func (p *partition) behind() bool { return p.pos.Next < p.target }

// partition finds the state of partition id, at first from the stored cursor. Without a usable one it
// starts with the log: rows that are there already are written again and absorbed.
func (w *Writer) partition(ctx context.Context, id int32) (*partition, error) {
	if p := w.parts[id]; p != nil {
		return p, nil
	}
	start, end, err := w.log.Bounds(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("bounds of p%d: %w", id, err)
	}
	c, ok := w.stored[id]
	switch {
	case !ok:
		if start > 0 {
			w.logger.Warn("questdb gets rows from the start of the log only, older ones were removed", "partition", id, "start", start)
		}
		c = w.oldest(id, start)
	case c.Next > end:
		w.logger.Warn("questdb cursor lies beyond the end of the log, starting over", "partition", id, "cursor", c.Next, "end", end)
		c = w.oldest(id, start)
	case c.Next < start:
		c = w.lose(id, c, start)
	}
	p := &partition{id: id, pos: c, committed: c}
	w.parts[id] = p
	w.inbox.settle(id, c)
	return p, nil
}

// oldest is the cursor to begin with in a log that starts at start.
func (w *Writer) oldest(id int32, start int64) host.Cursor {
	if c, ok := w.cfg.Oldest(id); ok && c.Next >= start {
		return c
	}
	return host.Cursor{Next: start, Epoch: noEpoch}
}

// lose says that the records between c and the start of the log are gone and their rows not in
// QuestDB (G5), and returns where to go on.
func (w *Writer) lose(id int32, c host.Cursor, start int64) host.Cursor {
	next := w.oldest(id, start)
	w.logger.Error("retention removed records whose rows are not in questdb", "partition", id, "cursor", c.Next, "start", start,
		"lost", next.Next-c.Next)
	w.stats.Lost.Add(uint64(next.Next - c.Next))
	return next
}
