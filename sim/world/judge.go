package world

import (
	"fmt"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// place is where a transition stands in the log.
type place struct {
	offset int64
	index  int
}

// judge folds the log of one partition record by record, as it is written and from its beginning, and holds
// against it what the nodes let out.
type judge struct {
	w     *World
	s     *shard
	valid host.Validator
	dec   codec.EventDecoder
	ev    codec.Event
	fx    twin.Effects

	twins   map[string]*twin.Twin
	taken   map[number]bool // inputs of valid records
	settled map[number]bool // of these, applied or late: they took effect
	patches map[string]int
	writes  map[string]int // updates in valid records, by mark
	deletes map[string]int // acknowledged, by device
	src     codec.Position
	sum     uint64         // of the hashes of all twins
	hashes  []uint64       // sum behind each offset
	real    []transition   // of valid records, in their order
	places  map[place]int  // where they are in real
	told    int            // of real, what a subscriber was told
	newest  map[uint64]int // of real, the newest of an alert by a reader of doppel.alerts
	counted []bool         // whether the record at an offset is valid
	forced  int

	rules  *alert.Set // in force
	ruled  int64      // their offset; 0: those that a node brings itself
	latest int64      // highest offset of rules that were
}

type transition struct {
	place
	alert uint64
	text  string
	seen  bool // published
}

func newJudge(w *World, s *shard) *judge {
	return &judge{
		w: w, s: s, twins: map[string]*twin.Twin{}, taken: map[number]bool{}, settled: map[number]bool{},
		patches: map[string]int{}, writes: map[string]int{}, deletes: map[string]int{}, places: map[place]int{}, newest: map[uint64]int{},
	}
}

func (j *judge) fail(format string, args ...any) {
	j.w.fail("partition %d: %s", j.s.id, fmt.Sprintf(format, args...))
}

// landed takes the record at offset, which has just been written.
func (j *judge) landed(offset int64, f *flight) {
	ev := &j.ev
	err := j.dec.Decode(f.value, ev)
	if j.w.trace != nil && err == nil {
		j.w.tracef("log[%d][%d] = %v %s epoch %d n %d src %v", j.s.id, offset, ev.Kind, f.key, ev.Epoch, ev.N, ev.SrcNext)
	}
	valid := j.valid.Valid(offset, ev, err)
	if valid {
		j.w.counts.records++
		j.fold(offset, string(f.key))
	} else {
		j.w.counts.void++
	}
	j.hashes = append(j.hashes, j.sum)
	j.counted = append(j.counted, valid)
}

// fold applies the valid record in j.ev.
func (j *judge) fold(offset int64, device string) {
	ev := &j.ev
	if p := ev.SrcNext; p != (codec.Position{}) { // else as before
		j.handled(offset, p)
	}
	switch ev.Kind { //nolint:exhaustive // the others are no rules
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		j.enact(nil)
	case doppelv1.EventKind_EVENT_KIND_RULES:
		j.enact(ev.Rules)
	}
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM || ev.OfPartition() || device == "" {
		return
	}
	tw := j.twins[device]
	if tw == nil {
		tw = twin.New(device, ev.Now)
		j.twins[device] = tw
	} else {
		j.sum -= tw.Hash()
	}
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_GAP {
		j.gap(device, tw, offset)
	}
	if j.ruled < j.latest {
		j.fail("offset %d, %s: under rules %d, behind rules %d", offset, device, j.ruled, j.latest)
	}
	tw.AddDuplicates(ev.Duplicates)
	tw.Step(ev.Now, &ev.Input, j.rules, &j.fx)
	j.sum += tw.Hash()
	if tw.Digest() != ev.Digest || tw.SetDigest() != ev.SetDigest || tw.Version() != ev.Version ||
		len(j.fx.Applied) != len(ev.Effects.Applied) || len(j.fx.Transitions) != len(ev.Effects.Transitions) || j.fx.Tell != ev.Effects.Tell {
		j.fail("offset %d, %s: the record is not what its fold gives: version %d, recorded %d", offset, device, tw.Version(), ev.Version)
	}
	j.input(offset, device)
	for i := range j.fx.Applied {
		if n, ok := named(device, j.fx.Applied[i].Numbered, j.fx.Applied[i].Boot, j.fx.Applied[i].Seq, scored(j.fx.Applied[i].Readings)); ok {
			if j.settled[n] {
				j.fail("offset %d: %v took effect twice", offset, n)
			}
			j.settled[n] = true
		}
	}
	for i := range j.fx.Transitions {
		if j.fx.Transitions[i].Shadow { // nobody is told
			continue
		}
		at := place{offset, i}
		j.places[at] = len(j.real)
		j.real = append(j.real, transition{place: at, alert: j.fx.Transitions[i].ID, text: textOf(device, &j.fx.Transitions[i])})
	}
}

// input enters what of a device a valid record brings.
func (j *judge) input(offset int64, device string) {
	switch in := &j.ev.Input; in.Kind { //nolint:exhaustive // the others bring nothing
	case twin.KindSample:
		if n, ok := named(device, in.Sample.Numbered, in.Sample.Boot, in.Sample.Seq, in.Sample.Readings); ok {
			j.taken[n] = true
		}
	case twin.KindDesired:
		j.write(&in.Desired)
	case twin.KindReported:
		patch := string(in.Reported.Patch)
		j.patches[patch]++
		if m := j.w.message([]byte(device), []byte(patch)); m != nil && j.patches[patch] > m.chances {
			j.fail("offset %d: patch %s counts %d times, and was given to the nodes %d times", offset, patch, j.patches[patch], m.chances)
		}
	}
}

// named names a sample by its numbers, or by what occurs once.
func named(device string, numbered bool, boot, seq uint64, readings []twin.Reading) (number, bool) {
	if numbered {
		return number{device, boot, seq}, true
	}
	for i := range readings {
		if readings[i].Name == "u" {
			return number{device, 0, uint64(readings[i].Value)}, true
		}
	}
	return number{}, false
}

func scored(rs []twin.ScoredReading) []twin.Reading {
	plain := make([]twin.Reading, len(rs))
	for i := range rs {
		plain[i] = twin.Reading{Name: rs[i].Name, Value: rs[i].Value}
	}
	return plain
}

// handled sees that ingest counts as handled up to p: nothing may be passed over, and nothing taken back.
func (j *judge) handled(offset int64, p codec.Position) {
	if p.Offset < j.src.Offset || p.Offset == j.src.Offset && p.Index < j.src.Index {
		j.fail("offset %d: ingest is handled up to %v again, it was up to %v before", offset, p, j.src)
	}
	j.src = p
}

// gap sees a gap declared: what was published before the sample that waits may not be given up on (P2).
func (j *judge) gap(device string, tw *twin.Twin, offset int64) {
	g := &j.ev.Input.Gap
	j.w.counts.gaps++
	if g.Forced {
		j.forced++
		return
	}
	since := tw.HeldSince() - 2*int64(j.w.climate.skew)
	for seq := uint64(1); seq < g.UpTo; seq++ {
		n := number{device, g.Boot, seq}
		if at, ok := j.w.published[n]; ok && at < since && !j.taken[n] {
			j.fail("offset %d: a gap gives up on %v, which the broker had before the sample that waits for it came", offset, n)
		}
	}
}

// released sees a message acknowledged by an owner: it must stand in the log by then, in records that count,
// or among the dead letters.
func (j *judge) released(m *message, by string) {
	if m.poison && !j.w.letters[m.payload] {
		j.fail("a message that nobody can read was acknowledged by %s and is no dead letter", by)
	}
	for _, n := range m.numbers {
		if !j.taken[n] {
			j.fail("%v was acknowledged by %s and stands in no record that counts", n, by)
		}
	}
}

func textOf(device string, a *alert.Alert) string {
	return fmt.Sprintf("%s %s %x %v %v %d", device, a.Rule, a.ID, a.State, a.Severity, a.UpdateTime)
}

// published sees a transition in doppel.alerts: it must be one of the log's. A subscriber is told what is
// behind all that it was told before (E1), and so must not miss any.
func (j *judge) published(t *host.Transition) {
	at := place{t.Offset, t.Index}
	i, ok := j.places[at]
	if got := textOf(t.Device, &t.Alert); !ok || got != j.real[i].text {
		j.fail("offset %d: published %q, which is not what the log has there", t.Offset, got)
		return
	}
	j.real[i].seen = true
	if was, ok := j.newest[t.Alert.ID]; !ok || i > was || j.w.broken.arrivals() {
		j.newest[t.Alert.ID] = i
	}
	switch {
	case i > j.told:
		j.fail("subscribers are told of %q and never of %q in front of it", j.real[i].text, j.real[j.told].text)
	case i == j.told:
		j.told++
	}
}

// looked holds the state hash that a node named for the log below next against the fold there: a stale node
// may be behind, never beside.
func (j *judge) looked(node string, next int64, hash uint64) {
	if next <= 0 || next > int64(len(j.hashes)) {
		j.fail("%s shows the state below offset %d of a log of %d", node, next, len(j.hashes))
	} else if want := j.hashes[next-1]; hash != want {
		j.fail("%s has state hash %x below offset %d, the fold of the log %x", node, hash, next, want)
	}
}

// rows sees what is offered to the time series store: samples that took effect, below the cursor it names (E3).
func (j *judge) rows(node string, r *host.Rows) {
	for i := range r.Samples {
		s := &r.Samples[i]
		if n := (number{s.Device, s.Boot, s.Seq}); s.Boot > 0 && !j.settled[n] {
			j.fail("%s offers a row of %v, which took no effect in the log", node, n)
		}
	}
	if r.To.Next > int64(len(j.hashes)) || r.From.Next > r.To.Next {
		j.fail("%s offers rows of offsets %d to %d of a log of %d", node, r.From.Next, r.To.Next, len(j.hashes))
	}
}
