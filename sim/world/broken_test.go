package world

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// fenceOff makes every acknowledgement adjacent to the one before, so that no hole is ever seen; nor is
// the end of the log.
func fenceOff(_ *process, t *tap) {
	t.append = func(part int32, recs []host.Record, acks host.Acks) {
		t.Log.Append(context.Background(), part, recs, acksFunc(func(n uint64, offset int64, err error) {
			if n == 0 {
				t.parts[part].acked(n, offset, err)
			} else if err == nil && offset >= 0 {
				offset = t.parts[part].next()
			}
			acks.Ack(n, offset, err)
		}))
	}
	t.bounds = (*tapped).blind
}

// ackedEarly acknowledges records as soon as they are handed over.
func ackedEarly(_ *process, t *tap) {
	t.append = func(part int32, recs []host.Record, acks host.Acks) {
		if recs[0].N == 0 {
			t.give(context.Background(), part, recs, acks)
			return
		}
		t.Log.Append(context.Background(), part, recs, acksFunc(func(uint64, int64, error) {}))
		for i := range recs {
			acks.Ack(recs[i].N, t.parts[part].next(), nil)
		}
	}
}

// holeAside releases what is acknowledged directly behind its predecessor while the hole in front of both is
// still being read. The doors of the records are called by what stands in them.
func holeAside(p *process, t *tap) {
	type answer struct {
		n      uint64
		offset int64
		err    error
	}
	held := make([][]answer, len(t.parts))
	t.append = func(part int32, recs []host.Record, acks host.Acks) {
		t.Log.Append(context.Background(), part, recs, acksFunc(func(n uint64, offset int64, err error) {
			s := &t.parts[part]
			behind := err == nil && n > 0 && offset == s.last+1
			hole := err == nil && n > 0 && offset > s.last+1
			s.acked(n, offset, err)
			if len(held[part]) > 0 && behind {
				p.acknowledge(part, offset)
			}
			if len(held[part]) == 0 && !hole {
				acks.Ack(n, offset, err)
				return
			}
			held[part] = append(held[part], answer{n, offset, err})
			if len(held[part]) > 1 {
				return
			}
			beside{p}.After(20e6, func() { // the hole is read
				all := held[part]
				held[part] = nil
				for _, a := range all {
					acks.Ack(a.n, a.offset, a.err)
				}
			})
		}))
	}
}

// acknowledge has the door acknowledge the message of the record at offset.
func (p *process) acknowledge(part int32, offset int64) {
	var dec codec.EventDecoder
	var ev codec.Event
	r := p.w.shards[part].log.recs[offset]
	if dec.Decode(r.value, &ev) != nil || ev.Input.Kind != twin.KindSample {
		return
	}
	n, ok := named(string(r.key), ev.Input.Sample.Numbered, ev.Input.Sample.Boot, ev.Input.Sample.Seq, ev.Input.Sample.Readings)
	for _, d := range p.w.loads {
		for _, m := range d.sent {
			if ok && len(m.numbers) == 1 && m.numbers[0] == n {
				p.w.shards[part].judge.released(m, p.n.name)
			}
		}
	}
}

// acceptedIsReleased says of what an owner has accepted that it is durable.
func acceptedIsReleased(m proto.Message) {
	if r, ok := m.(*doppelv1.DeliverResponse); ok && r.GetVerdict() == doppelv1.DeliveryVerdict_DELIVERY_VERDICT_ACCEPTED {
		r.Verdict = doppelv1.DeliveryVerdict_DELIVERY_VERDICT_RELEASED
	}
}

// duplicateAtOnce acknowledges a message that was given to this process before.
func duplicateAtOnce(p *process, m *message) bool {
	if m.poison || len(m.numbers) == 0 || !p.offered[m] {
		p.offered[m] = true
		return false
	}
	p.w.shards[m.part].judge.released(m, p.n.name)
	return false
}

// lateIsDuplicate acknowledges everything below the next number of its device.
func lateIsDuplicate(p *process, m *message) bool {
	tw := p.w.shards[m.part].judge.twins[m.device]
	if tw == nil || len(m.numbers) == 0 || m.numbers[0].boot == 0 || tw.Boot() == 0 {
		return false
	}
	if m.numbers[len(m.numbers)-1].seq > tw.Seq() {
		return false
	}
	p.w.shards[m.part].judge.released(m, p.n.name)
	return true
}

// renumbered makes a reader for which records count that do not: those that counts names, whose number in
// the epoch or whose epoch is not the one in force.
func renumbered(counts func(ev *codec.Event, inForce uint64) bool) func(*process, *tap) {
	return func(_ *process, t *tap) {
		t.read = func(part int32, from, _ int64) func(*host.LogRecord) {
			hole := t.hole(part, from)
			var dec codec.EventDecoder
			var ev codec.Event
			var inForce, n uint64
			known := from == 0
			return func(r *host.LogRecord) {
				switch {
				case hole:
				case dec.Decode(r.Value, &ev) != nil:
				case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
					inForce, n, known = uint64(r.Offset), 0, true
				case !known:
					inForce, n, known = ev.Epoch, ev.N, true
				case ev.Epoch == inForce && ev.N == n+1 || counts(&ev, inForce):
					n++
					if ev.Epoch != inForce || ev.N != n {
						ev.Epoch, ev.N = inForce, n
						r.Value = codec.AppendEvent(nil, &ev)
					}
				}
			}
		}
	}
}

func anyRecord(*codec.Event, uint64) bool          { return true }
func ofEpoch(ev *codec.Event, inForce uint64) bool { return ev.Epoch == inForce }
func stragglingSample(ev *codec.Event, inForce uint64) bool {
	return ev.Epoch < inForce && ev.Input.Kind == twin.KindSample
}

func stragglingPatch(ev *codec.Event, inForce uint64) bool {
	return ev.Epoch < inForce && ev.Input.Kind == twin.KindReported
}

// loggedAgain gives the owner the input of a straggler that it finds in a hole.
func loggedAgain(p *process, t *tap) {
	t.read = func(part int32, from, _ int64) func(*host.LogRecord) {
		hole := t.hole(part, from)
		var dec codec.EventDecoder
		var ev codec.Event
		return func(r *host.LogRecord) {
			if !hole || dec.Decode(r.Value, &ev) != nil || ev.Input.Kind != twin.KindReported || ev.Epoch >= uint64(t.parts[part].claim) {
				return
			}
			if m := p.w.message(r.Key, ev.Input.Reported.Patch); m != nil {
				_ = p.host.Offer(context.Background(), part, []host.Message{p.unasked(m)}, 1e9)
			}
		}
	}
}

// unasked is a message that no door waits for.
func (p *process) unasked(m *message) host.Message {
	msg := m.host(p.w.now)
	msg.Reply = nobody{}
	return msg
}

type nobody struct{}

// Done implements host.Reply.
func (nobody) Done([]uint64, host.Verdict) {}

// failureIgnored takes a failed produce for one that went well.
func failureIgnored(_ *process, t *tap) {
	t.append = func(part int32, recs []host.Record, acks host.Acks) {
		t.Log.Append(context.Background(), part, recs, acksFunc(func(n uint64, offset int64, err error) {
			s := &t.parts[part]
			switch {
			case n == 0:
				s.acked(n, offset, err)
			case err != nil || offset < 0:
				offset, err = s.next(), nil
			case offset <= s.last+8: // its own, not a fence's
				offset = s.next()
			}
			acks.Ack(n, offset, err)
		}))
	}
}

// noReclaim lets a node that was fenced off stay so, whatever the table says.
func noReclaim(p *process) {
	if p.host.Stats().Fenced.Load() == 0 {
		return
	}
	for i := range p.w.shards {
		if part := int32(i); p.steps.Owned(part) && p.host.Partition(part).State == host.Idle {
			p.host.Drop(part)
		}
	}
}

// noIdleCheck never shows an owner that somebody wrote behind it.
func noIdleCheck(_ *process, t *tap) { t.bounds = (*tapped).blind }

// consumed takes ingest for handled as far as it was ever read.
func consumed(p *process, cfg *host.Config) {
	floors(func(p *process, part int32, f *codec.Floor) {
		f.State.SrcNext = codec.Position{Offset: uint64(p.w.shards[part].ingest.end())}
	})(p, cfg)
}

// committed begins with ingest where the group's offset stands, which is committed now and then.
func committed(p *process, cfg *host.Config) {
	before := func(at, limit codec.Position) codec.Position {
		if at.Offset > limit.Offset {
			return limit
		}
		return at
	}
	limit := func(part int32) codec.Position {
		return codec.Position{Offset: p.w.shards[part].judge.src.Offset / 4 * 4}
	}
	floors(func(_ *process, part int32, f *codec.Floor) { f.State.SrcNext = before(f.State.SrcNext, limit(part)) })(p, cfg)
	changelog(func(_ *process, t *tap) {
		t.read = func(part int32, _, _ int64) func(*host.LogRecord) {
			var dec codec.EventDecoder
			var ev codec.Event
			return func(r *host.LogRecord) {
				if dec.Decode(r.Value, &ev) == nil && ev.SrcNext.Offset > limit(part).Offset {
					ev.SrcNext = codec.Position{}
					r.Value = codec.AppendEvent(nil, &ev)
				}
			}
		}
	})(p, cfg)
}

// noBarrier says that ingest ends at its beginning.
type noBarrier struct{ host.Ingest }

// Bounds implements host.Ingest.
func (noBarrier) Bounds(context.Context, int32) (start, end int64, err error) { return 0, 0, nil }

// byTimeAlone declares gaps without asking anybody.
func byTimeAlone(_ *process, cfg *host.Config) {
	cfg.Ingest, cfg.Gateways = noBarrier{cfg.Ingest}, nil
}
