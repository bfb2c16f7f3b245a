package world

import (
	"fmt"
	"slices"

	"github.com/doppel-iot/doppel/actors/codec"
)

// devices is the broker as a process publishes there what devices are told.
type devices process

// telling is a publication on its way to the broker.
type telling struct {
	p       *process
	since   int64 // when p died
	slow    int64 // before then it does not get there by itself
	device  string
	payload []byte
	done    func(error)
}

// Desired implements host.Devices.
func (d *devices) Desired(device string, payload []byte, done func(error)) {
	p := (*process)(d)
	t := &telling{p: p, device: device, payload: payload, done: done}
	if p.w.rng.IntN(4) == 0 {
		t.slow = p.w.now + p.w.rng.Int64N(int64(p.w.climate.pause))
	}
	p.w.tellings = append(p.w.tellings, t)
}

// tell lets a publication reach the broker, and its answer the process; failing: one of the two not, or both.
func (w *World) tell(i int, failing bool) {
	t := w.tellings[i]
	w.tellings = append(w.tellings[:i:i], w.tellings[i+1:]...)
	if t.p.dead && w.now-t.since > int64(w.climate.pause) {
		return
	}
	var err error
	if failing {
		err = errFault
	}
	if !failing || w.rng.IntN(2) == 0 {
		w.tracef("%s tells %s %s", t.p.n.name, t.device, t.payload)
		w.retained[t.device] = string(t.payload)
	}
	switch {
	case t.p.dead:
	case t.p.paused:
		t.p.late = append(t.p.late, func() { t.done(err) })
	default:
		t.done(err)
	}
}

// tellAll lets everything reach the broker that is not slow.
func (w *World) tellAll() (busy bool) {
	for i := range slices.Backward(w.tellings) {
		if i < len(w.tellings) && w.tellings[i].slow <= w.now {
			w.tell(i, false)
			busy = true
		}
	}
	return busy
}

// untold is the first device of which the broker keeps something else than its twin has for it; empty: none.
func (w *World) untold() string {
	for _, d := range w.loads {
		var want []byte
		if tw := w.shards[d.part].judge.twins[d.id]; tw != nil {
			want = codec.DesiredMessage(tw)
		}
		if got := w.retained[d.id]; got != string(want) {
			return fmt.Sprintf("%s is told %s and not %s", d.id, got, want)
		}
	}
	return ""
}
