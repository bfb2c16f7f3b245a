package rules

import (
	"bytes"
	"context"
	"math"
	"sync"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// port is a Log with something in the way.
type port struct {
	host.Log
	append func(ctx context.Context, recs []host.Record, acks host.Acks)
	bounds func(start, end int64) (int64, int64)
	read   func(from int64) func(*host.LogRecord) // what is done to each record of a read
	epoch  epoch
}

// epoch is what a node's acknowledgements say of its newest claim.
type epoch struct {
	mu          sync.Mutex
	claim, last int64 // offsets: of the claim, and the last acknowledged to the owner
	looks       int   // at the bounds, since the claim
}

func (e *epoch) get() (claim, last int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.claim, e.last
}

// next notes the next offset behind the last one as acknowledged.
func (e *epoch) next() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	return e.last
}

// acked notes an acknowledgement.
func (e *epoch) acked(n uint64, offset int64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil || offset < 0 {
		return
	}
	if e.last = offset; n == 0 {
		e.claim, e.looks = offset, 0
	}
}

// acksFunc is an Acks.
type acksFunc func(n uint64, offset int64, err error)

// Ack implements host.Acks.
func (f acksFunc) Ack(n uint64, offset int64, err error) { f(n, offset, err) }

// Append implements host.Log.
func (p *port) Append(ctx context.Context, part int32, recs []host.Record, acks host.Acks) {
	if p.append != nil {
		p.append(ctx, recs, acks)
		return
	}
	p.Log.Append(ctx, part, recs, acksFunc(func(n uint64, offset int64, err error) {
		p.epoch.acked(n, offset, err)
		acks.Ack(n, offset, err)
	}))
}

// Bounds implements host.Log.
func (p *port) Bounds(ctx context.Context, part int32) (start, end int64, err error) {
	start, end, err = p.Log.Bounds(ctx, part)
	if err == nil && p.bounds != nil {
		start, end = p.bounds(start, end)
	}
	return start, end, err
}

// Read implements host.Log.
func (p *port) Read(ctx context.Context, part int32, from, to int64, fn func(host.LogRecord) error) error {
	if p.read == nil {
		return p.Log.Read(ctx, part, from, to, fn)
	}
	change := p.read(from)
	return p.Log.Read(ctx, part, from, to, func(r host.LogRecord) error {
		r.Value = bytes.Clone(r.Value)
		change(&r)
		return fn(r)
	})
}

// fenceOff makes every acknowledgement adjacent to the one before, so that no hole is ever seen; nor is
// the end of the log.
func fenceOff(_ *node, cfg *host.Config) {
	p := &port{Log: cfg.Changelog}
	p.append = func(ctx context.Context, recs []host.Record, acks host.Acks) {
		p.Log.Append(ctx, 0, recs, acksFunc(func(n uint64, offset int64, err error) {
			if n == 0 {
				p.epoch.acked(n, offset, err)
			} else if err == nil && offset >= 0 {
				offset = p.epoch.next()
			}
			acks.Ack(n, offset, err)
		}))
	}
	p.bounds = p.blind
	cfg.Changelog = p
}

// blind shows an owner that serves nothing behind what it knows of. The first look belongs to the restore.
func (p *port) blind(start, end int64) (_, _ int64) {
	p.epoch.mu.Lock()
	defer p.epoch.mu.Unlock()
	if p.epoch.looks++; p.epoch.looks > 1 {
		end = min(end, p.epoch.last+1)
	}
	return start, end
}

// ackedEarly acknowledges records as soon as they are handed over.
func ackedEarly(_ *node, cfg *host.Config) {
	p := &port{Log: cfg.Changelog}
	p.append = func(ctx context.Context, recs []host.Record, acks host.Acks) {
		if recs[0].Key == nil && recs[0].N == 0 {
			p.Log.Append(ctx, 0, recs, acksFunc(func(n uint64, offset int64, err error) {
				p.epoch.acked(n, offset, err)
				acks.Ack(n, offset, err)
			}))
			return
		}
		p.Log.Append(ctx, 0, recs, acksFunc(func(uint64, int64, error) {}))
		for i := range recs {
			acks.Ack(recs[i].N, p.epoch.next(), nil)
		}
	}
	cfg.Changelog = p
}

// failureIgnored takes a failed produce for one that went well.
func failureIgnored(_ *node, cfg *host.Config) {
	p := &port{Log: cfg.Changelog}
	p.append = func(ctx context.Context, recs []host.Record, acks host.Acks) {
		p.Log.Append(ctx, 0, recs, acksFunc(func(n uint64, offset int64, err error) {
			switch {
			case n == 0:
				p.epoch.acked(n, offset, err)
			case err != nil || offset < 0:
				offset, err = p.epoch.next(), nil
			default:
				if _, last := p.epoch.get(); offset <= last+8 { // its own, not a fence's
					offset = p.epoch.next()
				}
			}
			acks.Ack(n, offset, err)
		}))
	}
	cfg.Changelog = p
}

// holeNotRead finds nothing in any hole.
func holeNotRead(_ *node, cfg *host.Config) {
	p := &port{Log: cfg.Changelog}
	p.read = func(from int64) func(*host.LogRecord) {
		claim, _ := p.epoch.get()
		return func(r *host.LogRecord) {
			if claim > 0 && from > claim {
				r.Value = []byte("void")
			}
		}
	}
	cfg.Changelog = p
}

// noIdleCheck never shows an owner that somebody wrote behind it.
func noIdleCheck(_ *node, cfg *host.Config) {
	p := &port{Log: cfg.Changelog}
	p.bounds = p.blind
	cfg.Changelog = p
}

// duplicateAtOnce acknowledges a message that is under way already.
func duplicateAtOnce(n *node, _ *host.Config) {
	push := n.push
	seen := map[string]bool{}
	n.push = func(ctx context.Context, msgs []host.Message) error {
		if m := &msgs[0]; seen[string(m.Payload)] && len(m.Payload) > 0 && m.Payload[1] != 'b' {
			m.Reply.Done([]uint64{m.Token}, host.Released)
			return nil
		}
		seen[string(msgs[0].Payload)] = true
		return push(ctx, msgs)
	}
}

// renumbered makes a reader that knows less: records count though their count (and, with all, their
// epoch) is not the one in force.
func renumbered(all bool) breaks {
	return func(_ *node, cfg *host.Config) {
		p := &port{Log: cfg.Changelog}
		p.read = func(from int64) func(*host.LogRecord) {
			claim, _ := p.epoch.get()
			var dec codec.EventDecoder
			var ev codec.Event
			var inForce, n uint64
			known := from == 0
			return func(r *host.LogRecord) {
				switch {
				case claim > 0 && from > claim: // a hole
				case dec.Decode(r.Value, &ev) != nil:
				case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
					inForce, n, known = uint64(r.Offset), 0, true
				case !known:
					inForce, n, known = ev.Epoch, ev.N, true
				case ev.Epoch == inForce || all:
					n++
					if ev.Epoch != inForce || ev.N != n {
						ev.Epoch, ev.N = inForce, n
						r.Value = codec.AppendEvent(nil, &ev)
					}
				}
			}
		}
		cfg.Changelog = p
	}
}

// floors changes the floors that a restore reads.
func floors(change func(n *node, f *codec.Floor)) breaks {
	return func(n *node, cfg *host.Config) {
		p := &port{Log: cfg.State}
		p.read = func(int64) func(*host.LogRecord) {
			return func(r *host.LogRecord) {
				if string(r.Key) != codec.FloorKey {
					return
				}
				if f, err := codec.DecodeFloor(r.Value); err == nil {
					change(n, &f)
					r.Value = codec.AppendFloor(nil, &f)
				}
			}
		}
		cfg.State = p
	}
}

func trustStale(_ *node, f *codec.Floor)    { f.StateOffset = math.MaxInt64 }
func noEffectsNext(_ *node, f *codec.Floor) { f.EffectsNext = math.MaxInt64 }
func ingestAnew(_ *node, f *codec.Floor)    { f.State.SrcNext = codec.Position{} }

// ingestConsumed takes ingest for handled as far as it was ever read.
func ingestConsumed(n *node, f *codec.Floor) {
	f.State.SrcNext = codec.Position{Offset: uint64(n.w.ingest.end())}
}

// trustNewer takes checkpoints of a newer epoch for older ones, of before its claim.
func trustNewer(n *node, cfg *host.Config) {
	n.w.tardyOnly = true // or it takes a thousand worlds
	log, state := &port{Log: cfg.Changelog}, &port{Log: cfg.State}
	state.read = func(int64) func(*host.LogRecord) {
		claim, _ := log.epoch.get()
		before := max(claim-1, 0)
		var dec codec.CheckpointDecoder
		return func(r *host.LogRecord) {
			var c codec.Checkpoint
			if string(r.Key) == codec.FloorKey {
				if f, err := codec.DecodeFloor(r.Value); err == nil && f.Epoch > uint64(claim) {
					f.Epoch, f.LogOffset = uint64(before), before
					r.Value = codec.AppendFloor(nil, &f)
				}
			} else if dec.Decode(r.Value, &c) == nil && c.Epoch > uint64(claim) {
				c.Epoch, c.Asof = uint64(before), before
				r.Value = codec.AppendCheckpoint(nil, &c)
			}
		}
	}
	cfg.Changelog, cfg.State = log, state
}

// floorAhead moves the floor on before the checkpoints it builds on are durable.
func floorAhead(n *node, cfg *host.Config) {
	n.w.stateFails = true // or it takes thousands of worlds
	p := &port{Log: cfg.State}
	p.append = func(ctx context.Context, recs []host.Record, acks host.Acks) {
		_, end, err := p.Log.Bounds(ctx, 0)
		if err != nil {
			return
		}
		for i := range recs {
			p.Log.Append(ctx, 0, recs[i:i+1], acksFunc(func(uint64, int64, error) {}))
			p.epoch.mu.Lock()
			p.epoch.last = max(p.epoch.last+1, end)
			offset := p.epoch.last
			p.epoch.mu.Unlock()
			acks.Ack(recs[i].N, offset, nil)
		}
	}
	cfg.State = p
}

// noBarrier says that ingest ends at its beginning.
type noBarrier struct{ host.Ingest }

// Bounds implements host.Ingest.
func (noBarrier) Bounds(context.Context, int32) (start, end int64, err error) { return 0, 0, nil }

// hasty is a log that removes at once what is not needed at this moment.
type hasty struct {
	host.Retention
	w *world
}

// Needs implements host.Retention.
func (h hasty) Needs(_ int32, n host.Needs) { h.w.log.truncate(n.Changelog.Next) }
