package questdb

import (
	"context"
	"fmt"
	"math"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
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

// behind says whether rows of p must be read from the log.
func (p *partition) behind() bool { return p.pos.Next < p.target }

// admit moves c over the record at offset and says whether the record is valid (R1-R3): its epoch is
// the one in force and its count continues. ev is nil for bytes nobody can read.
func admit(c *host.Cursor, offset int64, ev *codec.Event) bool {
	c.Next = offset + 1
	switch {
	case ev == nil:
		return false
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
		c.Epoch, c.N = uint64(offset), 0
		return true
	case ev.Epoch == c.Epoch && ev.N == c.N+1:
		c.N++
		return true
	}
	return false
}

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
		c = host.Cursor{Next: start, Epoch: noEpoch}
	case c.Next > end:
		w.logger.Warn("questdb cursor lies beyond the end of the log, starting over", "partition", id, "cursor", c.Next, "end", end)
		c = host.Cursor{Next: start, Epoch: noEpoch}
	case c.Next < start:
		w.logger.Error("retention removed records whose rows are not in questdb", "partition", id, "cursor", c.Next, "start", start)
		c = host.Cursor{Next: start, Epoch: noEpoch}
	}
	p := &partition{id: id, pos: c, committed: c}
	w.parts[id] = p
	w.inbox.settle(id, c.Next)
	return p, nil
}
