package world

import (
	"fmt"
	"strconv"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// mark is the tag that names an update: no two have the same value.
const mark = "w"

// write has people change or delete a twin, at a process that thinks it serves it.
func (w *World) write(p *process) {
	r := w.rng
	d := w.loads[r.IntN(len(w.loads))]
	if p.host.Partition(d.part).State != host.Serving {
		return
	}
	j := w.shards[d.part].judge
	w.written++
	if r.IntN(6) == 0 {
		w.tracef("%s: delete %s", p.n.name, d.id)
		p.steps.Delete(d.part, d.id, func(err error) {
			if err == nil && !p.dead {
				j.deleted(d.id, p.n.name)
			}
		})
		return
	}
	id := strconv.Itoa(w.written)
	u := host.Update{Device: d.id, AllowMissing: r.IntN(2) == 0, Tags: map[string]string{mark: id}, ReplaceTags: r.IntN(3) == 0}
	switch r.IntN(4) {
	case 0:
	case 1:
		u.Desired = []byte(`{"_sampling":{"interval_ms":1000,"alert_interval_ms":100}}`)
	case 2:
		u.Desired = []byte(`{"rate":null}`)
	default:
		u.Desired = fmt.Appendf(nil, `{"rate":%d}`, r.IntN(4))
	}
	w.tracef("%s: update %s of %s: %s", p.n.name, id, d.id, u.Desired)
	p.steps.Update(d.part, u, func(err error) {
		if err == nil && !p.dead {
			j.wrote(id, p.n.name)
		}
	})
}

// wrote sees an update acknowledged: it must stand in the log by then, once.
func (j *judge) wrote(id, by string) {
	j.w.counts.writes++
	if n := j.writes[id]; n != 1 {
		j.fail("update %s was acknowledged by %s and stands in %d records that count", id, by, n)
	}
}

// deleted sees a delete acknowledged: each has ended a life of its own.
func (j *judge) deleted(device, by string) {
	j.w.counts.deletes++
	j.deletes[device]++
	if tw := j.twins[device]; tw == nil || tw.Lives() < uint64(j.deletes[device]) {
		j.fail("%d deletes of %s were acknowledged, the last by %s, and not all of them stand in the log", j.deletes[device], device, by)
	}
}

// write enters an update that a valid record brings.
func (j *judge) write(in *twin.Desired) {
	if id, ok := in.Tags[mark]; ok {
		j.writes[id]++
	}
}
