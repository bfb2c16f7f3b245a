package world

import (
	"bytes"
	"context"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

// tap is a log with something in the way: what breaks a rule of the protocol stands between the host and its
// ports, never in the host.
type tap struct {
	host.Log
	parts []tapped
	// append stands for Append; nil: as it is. give hands over, taking note of the acknowledgements.
	append func(part int32, recs []host.Record, acks host.Acks)
	bounds func(t *tapped, start, end int64) (int64, int64)
	// read is what is done to each record of a read of [from, to).
	read func(part int32, from, to int64) func(*host.LogRecord)
}

// tapped is what a process's acknowledgements say of its newest claim of a partition.
type tapped struct {
	claim, last int64 // offsets: of the claim, and the last acknowledged to the owner
	looks       int   // at the bounds, since the claim
}

func newTap(log host.Log, partitions int32) *tap {
	return &tap{Log: log, parts: make([]tapped, partitions)}
}

// acksFunc is an Acks.
type acksFunc func(n uint64, offset int64, err error)

// Ack implements host.Acks.
func (f acksFunc) Ack(n uint64, offset int64, err error) { f(n, offset, err) }

// Append implements host.Log.
func (t *tap) Append(ctx context.Context, part int32, recs []host.Record, acks host.Acks) {
	if t.append != nil {
		t.append(part, recs, acks)
		return
	}
	t.give(ctx, part, recs, acks)
}

// give appends, and notes what is acknowledged.
func (t *tap) give(ctx context.Context, part int32, recs []host.Record, acks host.Acks) {
	t.Log.Append(ctx, part, recs, acksFunc(func(n uint64, offset int64, err error) {
		t.parts[part].acked(n, offset, err)
		acks.Ack(n, offset, err)
	}))
}

func (t *tapped) acked(n uint64, offset int64, err error) {
	if err != nil || offset < 0 {
		return
	}
	if t.last = offset; n == 0 {
		t.claim, t.looks = offset, 0
	}
}

// next notes the next offset behind the last one as acknowledged.
func (t *tapped) next() int64 {
	t.last++
	return t.last
}

// blind shows an owner that serves nothing behind what it knows of. The first look belongs to the restore.
func (t *tapped) blind(start, end int64) (_, _ int64) {
	if t.looks++; t.looks > 1 {
		end = min(end, t.last+1)
	}
	return start, end
}

// Bounds implements host.Log.
func (t *tap) Bounds(ctx context.Context, part int32) (start, end int64, err error) {
	start, end, err = t.Log.Bounds(ctx, part)
	if err == nil && t.bounds != nil {
		start, end = t.bounds(&t.parts[part], start, end)
	}
	return start, end, err
}

// Read implements host.Log.
func (t *tap) Read(ctx context.Context, part int32, from, to int64, fn func(host.LogRecord) error) error {
	if t.read == nil {
		return t.Log.Read(ctx, part, from, to, fn)
	}
	change := t.read(part, from, to)
	return t.Log.Read(ctx, part, from, to, func(r host.LogRecord) error {
		r.Value = bytes.Clone(r.Value)
		change(&r)
		return fn(r)
	})
}

// hole says whether a read of an owner is that of a hole behind its claim.
func (t *tap) hole(part int32, from int64) bool {
	claim := t.parts[part].claim
	return claim > 0 && from > claim
}

// changelog taps the changelog of a process.
func changelog(set func(p *process, t *tap)) func(*process, *host.Config) {
	return func(p *process, cfg *host.Config) {
		t := newTap(cfg.Changelog, cfg.Partitions)
		set(p, t)
		cfg.Changelog = t
	}
}

// floors changes the floors that a restore reads.
func floors(change func(p *process, part int32, f *codec.Floor)) func(*process, *host.Config) {
	return func(p *process, cfg *host.Config) {
		t := newTap(cfg.State, cfg.Partitions)
		t.read = func(part int32, _, _ int64) func(*host.LogRecord) {
			return func(r *host.LogRecord) {
				if string(r.Key) != codec.FloorKey {
					return
				}
				if f, err := codec.DecodeFloor(r.Value); err == nil {
					change(p, part, &f)
					r.Value = codec.AppendFloor(nil, &f)
				}
			}
		}
		cfg.State = t
	}
}
