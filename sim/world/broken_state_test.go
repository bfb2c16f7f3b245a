package world

import (
	"bytes"
	"context"
	"math"
	"slices"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// What breaks the rules of checkpoints, floors and retention.

// unreleased keeps beside an owner what its twins are with all that is in flight, and writes checkpoints of that.
func unreleased(p *process, cfg *host.Config) {
	type live struct {
		twins map[string]*twin.Twin
		fx    twin.Effects
	}
	parts := make([]live, cfg.Partitions)
	log := newTap(cfg.Changelog, cfg.Partitions)
	log.append = func(part int32, recs []host.Record, acks host.Acks) {
		l, j := &parts[part], p.w.shards[part].judge
		var dec codec.EventDecoder
		var ev codec.Event
		for i := range recs {
			if recs[i].N == 0 || dec.Decode(recs[i].Value, &ev) != nil {
				continue
			}
			tw := l.twins[string(recs[i].Key)]
			if tw == nil {
				if tw = copied(j.twins[string(recs[i].Key)]); tw == nil {
					tw = twin.New(string(recs[i].Key), ev.Now)
				}
				l.twins[tw.ID()] = tw
			}
			tw.Step(ev.Now, &ev.Input, p.w.lab.rules, &l.fx)
		}
		log.Log.Append(context.Background(), part, recs, acksFunc(func(n uint64, offset int64, err error) {
			if n == 0 {
				l.twins = map[string]*twin.Twin{}
			}
			acks.Ack(n, offset, err)
		}))
	}
	state := newTap(cfg.State, cfg.Partitions)
	state.append = func(part int32, recs []host.Record, acks host.Acks) {
		var dec codec.CheckpointDecoder
		recs = slices.Clone(recs)
		for i := range recs {
			var c codec.Checkpoint
			tw := parts[part].twins[string(recs[i].Key)]
			if tw != nil && dec.Decode(recs[i].Value, &c) == nil {
				c.Twin = tw.EncodeCheckpoint(nil)
				recs[i].Value = codec.AppendCheckpoint(nil, &c)
			}
		}
		state.Log.Append(context.Background(), part, recs, acks)
	}
	cfg.Changelog, cfg.State = log, state
}

func copied(t *twin.Twin) *twin.Twin {
	if t == nil {
		return nil
	}
	c := new(twin.Twin)
	if c.Decode(t.ID(), t.Encode(nil), nil) != nil {
		return nil
	}
	return c
}

func trustStale(_ *process, _ int32, f *codec.Floor)    { f.StateOffset = math.MaxInt64 }
func noEffectsNext(_ *process, _ int32, f *codec.Floor) { f.EffectsNext = math.MaxInt64 }

// trustNewer takes checkpoints of a newer epoch for older ones, of before its claim.
func trustNewer(_ *process, cfg *host.Config) {
	log, state := newTap(cfg.Changelog, cfg.Partitions), newTap(cfg.State, cfg.Partitions)
	state.read = func(part int32, _, _ int64) func(*host.LogRecord) {
		claim := log.parts[part].claim
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

// floorAhead writes floors before the checkpoints they build on are durable: these are sent a while later.
func floorAhead(p *process, cfg *host.Config) {
	t := newTap(cfg.State, cfg.Partitions)
	t.append = func(part int32, recs []host.Record, acks host.Acks) {
		s := &t.parts[part]
		end := p.w.shards[part].state.end()
		for i := range recs {
			one := []host.Record{{N: recs[i].N, Key: bytes.Clone(recs[i].Key), Value: bytes.Clone(recs[i].Value)}}
			send := func() { t.Log.Append(context.Background(), part, one, acksFunc(func(uint64, int64, error) {})) }
			if string(one[0].Key) == codec.FloorKey {
				send()
			} else {
				beside{p}.After(time.Second, send)
			}
			s.last = max(s.last+1, end)
			acks.Ack(recs[i].N, s.last, nil)
		}
	}
	cfg.State = t
}

// floorNowhere sends floors whose partition state is that of the newest record appended, wherever it may end.
func floorNowhere(_ *process, cfg *host.Config) {
	newest := make([]codec.Position, cfg.Partitions)
	log := newTap(cfg.Changelog, cfg.Partitions)
	log.append = func(part int32, recs []host.Record, acks host.Acks) {
		var dec codec.EventDecoder
		var ev codec.Event
		for i := range recs {
			if dec.Decode(recs[i].Value, &ev) == nil && ev.SrcNext != (codec.Position{}) {
				newest[part] = ev.SrcNext
			}
		}
		log.Log.Append(context.Background(), part, recs, acks)
	}
	state := newTap(cfg.State, cfg.Partitions)
	state.append = func(part int32, recs []host.Record, acks host.Acks) {
		recs = slices.Clone(recs)
		for i := range recs {
			if string(recs[i].Key) != codec.FloorKey {
				continue
			}
			if f, err := codec.DecodeFloor(recs[i].Value); err == nil && f.State.SrcNext.Offset < newest[part].Offset {
				f.State.SrcNext = newest[part]
				recs[i].Value = codec.AppendFloor(nil, &f)
			}
		}
		state.Log.Append(context.Background(), part, recs, acks)
	}
	cfg.Changelog, cfg.State = log, state
}

// hasty removes at once what is not needed at this moment.
type hasty struct {
	host.Retention
	w *World
}

// Needs implements host.Retention.
func (h hasty) Needs(part int32, n host.Needs) { h.w.shards[part].log.truncate(n.Changelog.Next) }

// deadly is a climate in which owners die soon.
func deadly(c *climate) { c.weights[crashes], c.weights[starts] = 20, 40 }

// lagging is a climate in which ingest is read late.
func lagging(c *climate) { c.lag, c.slow = 2*time.Second, 2 }

// narrow is a climate in which the broker holds most messages back.
func narrow(c *climate) { c.window = 2 }
