package world

import (
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

// arrivals says whether readers of alerts go by arrival.
func (b *breaks) arrivals() bool { return b != nil && b.byArrival }

// readers are those that begin in the middle of the log, and those of alerts.
func (j *judge) readers() {
	if end := j.s.log.end(); end > 0 {
		j.reader(j.w.rng.Int64N(end))
	}
	newest := map[uint64]int{}
	for i := range j.real {
		newest[j.real[i].alert] = i
	}
	for i := range j.real { // in order, or a seed would not say the same twice
		if id := j.real[i].alert; j.newest[id] != newest[id] {
			j.fail("of an alert readers know %q, and the newest is %q", j.real[j.newest[id]].text, j.real[newest[id]].text)
		}
	}
}

// reader reads the log from an offset on of which it knows nothing (R4): what it takes for valid must be.
func (j *judge) reader(from int64) {
	valid := host.Validator{Cursor: host.FromFirstClaim(from)}
	var dec codec.EventDecoder
	var ev codec.Event
	for offset := from; offset < j.s.log.end(); offset++ {
		err := dec.Decode(j.s.log.recs[offset].value, &ev)
		if b := j.w.broken; b != nil && b.coldReader && offset == from && err == nil {
			valid.Epoch, valid.N = ev.Epoch, ev.N-1
		}
		if valid.Valid(offset, &ev, err) && !j.counted[offset] {
			j.fail("a reader from offset %d on takes the record at %d for valid", from, offset)
		}
	}
}
