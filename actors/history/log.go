package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Log is doppel.telemetry.
type Log interface {
	// Bounds are the first offset still there and the offset behind the last.
	Bounds(ctx context.Context, p int32) (start, end int64, err error)
	// Read calls fn for each record with from <= offset < to, in order.
	Read(ctx context.Context, p int32, from, to int64, fn func(host.LogRecord) error) error
	// OffsetAt is the offset of the first record written at a time (unix nanoseconds) or later by the clock
	// of its writer, and the end if there is none.
	OffsetAt(ctx context.Context, p int32, at int64) (int64, error)
}

const (
	// ahead is how far a sample's time may lie before the time of its record: devices' clocks may be 10 min
	// fast, and those of nodes differ a little.
	ahead = int64(15 * time.Minute)
	// lookBack is how many records in front of those that may be wanted are read, to see what is in force.
	lookBack = 256
	// maxRecords bounds a reading of the log.
	maxRecords = 20_000_000
	// maxTail bounds what is read of it to complete the store.
	maxTail = 2_000_000
)

// fromLog answers from the log alone.
func (r *Reader) fromLog(ctx context.Context, p int32, q *Query) (Page, error) {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return Page{}, ctx.Err()
	}
	first, end, err := r.cfg.Log.Bounds(ctx, p)
	if err != nil {
		return Page{}, fmt.Errorf("history of p%d: %w", p, err)
	}
	at, err := r.cfg.Log.OffsetAt(ctx, p, q.from()-ahead)
	if err != nil {
		return Page{}, fmt.Errorf("history of p%d: %w", p, err)
	}
	at = max(at, first)
	cut := first > 0 && at == first
	at = max(at-lookBack, first)
	from := start{Cursor: host.FromFirstClaim(at), bare: at > 0}
	c := newCollector(q)
	began, err := r.scan(ctx, p, from, end, maxRecords, q, c)
	if err != nil {
		return Page{}, err
	}
	page := c.page()
	if cut && began > q.from() {
		page.RetainedFrom = began
	}
	return page, nil
}

// scan gathers what the valid records of the device between two places of the log applied, and returns
// the logged time of the first record met.
func (r *Reader) scan(ctx context.Context, p int32, from start, to int64, most int, q *Query, c *collector) (began int64, err error) {
	if from.Next >= to {
		return 0, nil
	}
	v := validity{Validator: host.Validator{Cursor: from.Cursor}, bare: from.bare, from: from.Next}
	var dec codec.EventDecoder
	var ev codec.Event
	met := 0
	err = r.cfg.Log.Read(ctx, p, from.Next, to, func(rec host.LogRecord) error {
		if met++; met > most {
			return ErrTooMuch
		}
		err := dec.Decode(rec.Value, &ev)
		if began == 0 && err == nil {
			began = ev.Now
		}
		if v.corrects(&ev, err) {
			c.reset()
		}
		if !v.Valid(rec.Offset, &ev, err) || string(rec.Key) != q.Device || ev.OfPartition() {
			return nil
		}
		return c.take(&ev)
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrTooMuch):
		return began, fmt.Errorf("p%d from offset %d to %d: %w", p, from.Next, to, ErrTooMuch)
	default:
		return began, fmt.Errorf("history of p%d: %w", p, err)
	}
	return began, nil
}

// validity says which records count (R1-R3), also from an offset on where nothing is known of what is in
// force. There a record's epoch is the offset of its Claim: of several that stand in front of the offset
// the newest was in force, and the others' records are stragglers. One passes for valid only if it and
// hundreds more landed a quarter of an hour behind the last record of a newer owner; and what it says was
// never acknowledged, so its sample came again, and has the same place.
type validity struct {
	host.Validator
	bare  bool // no Claim met yet
	known bool // an epoch is taken to be in force
	from  int64
}

// corrects says that what counted so far did not.
func (v *validity) corrects(ev *codec.Event, err error) bool {
	switch {
	case !v.bare || err != nil:
		return false
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
		v.bare = false
		return false
	case ev.Epoch >= uint64(v.from), v.known && ev.Epoch <= v.Epoch, ev.N == 0:
		return false
	}
	again := v.known
	v.Epoch, v.N, v.known = ev.Epoch, ev.N-1, true
	return again
}
