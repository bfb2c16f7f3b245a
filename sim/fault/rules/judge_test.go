package rules

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// number names a sample of a device with numbers.
type number struct {
	device    string
	boot, seq uint64
}

// ack is who acknowledged a sample first, and when.
type ack struct {
	by string
	at int64
}

// place is where a transition stands in the log.
type place struct {
	offset int64
	index  int
}

// judge folds the log record by record, as it is written and from its beginning, by rules of its own,
// and holds against it what the hosts let out.
type judge struct {
	mu    sync.Mutex
	found string // the first thing that was wrong

	rules   *alert.Set
	valid   host.Validator
	dec     codec.EventDecoder
	ev      codec.Event
	fx      twin.Effects
	twins   map[string]*twin.Twin
	taken   map[number]bool // inputs of valid records
	settled map[number]bool // of these, applied or late: they took effect
	acked   map[number]ack
	src     codec.Position
	sum     uint64   // of the hashes of all twins
	hashes  []uint64 // sum behind each offset
	letters map[string]bool
	real    map[place]string // transitions of valid records
	seen    map[place]bool   // of these, published
	forced  int
	gaps    int
	void    int
}

func newJudge(rules *alert.Set) *judge {
	return &judge{
		rules: rules, twins: map[string]*twin.Twin{}, taken: map[number]bool{}, settled: map[number]bool{}, acked: map[number]ack{},
		letters: map[string]bool{}, real: map[place]string{}, seen: map[place]bool{},
	}
}

func (j *judge) fail(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failLocked(format, args...)
}

func (j *judge) failLocked(format string, args ...any) {
	if j.found == "" {
		j.found = fmt.Sprintf(format, args...)
	}
}

func (j *judge) verdict() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.found
}

// landed takes the record at offset, which has just been written.
func (j *judge) landed(offset int64, key, value []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() { j.hashes = append(j.hashes, j.sum) }()
	ev := &j.ev
	if !j.valid.Valid(offset, ev, j.dec.Decode(value, ev)) {
		j.void++
		return
	}
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM || ev.OfPartition() || len(key) == 0 {
		return
	}
	if p := ev.SrcNext; p != (codec.Position{}) { // else as before
		if p.Offset < j.src.Offset || p.Offset == j.src.Offset && p.Index < j.src.Index {
			j.failLocked("offset %d: ingest is handled up to %v again, it was up to %v before", offset, p, j.src)
		}
		j.src = p
	}
	device := string(key)
	tw := j.twins[device]
	if tw == nil {
		tw = twin.New(device, ev.Now)
		j.twins[device] = tw
	} else {
		j.sum -= tw.Hash()
	}
	defer func() { j.sum += tw.Hash() }()
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_GAP {
		j.gap(device, tw, &ev.Input.Gap, offset)
	}
	tw.AddDuplicates(ev.Duplicates)
	tw.Step(ev.Now, &ev.Input, j.rules, &j.fx)
	// Recorded beside a panic: who wrote it cannot know the twin any more.
	wrecked := tw.Quarantined() && ev.Version == 0
	if !wrecked && (tw.Digest() != ev.Digest || tw.SetDigest() != ev.SetDigest || tw.Version() != ev.Version || len(j.fx.Applied) != len(ev.Effects.Applied) ||
		len(j.fx.Transitions) != len(ev.Effects.Transitions)) {
		j.failLocked("offset %d, device %s: the record is not what its fold gives: version %d, recorded %d", offset, device, tw.Version(), ev.Version)
	}
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_SAMPLE && ev.Input.Sample.Numbered {
		j.taken[number{device, ev.Input.Sample.Boot, ev.Input.Sample.Seq}] = true
	}
	for i := range j.fx.Applied {
		if a := &j.fx.Applied[i]; a.Numbered {
			n := number{device, a.Boot, a.Seq}
			if j.settled[n] {
				j.failLocked("offset %d: %v took effect twice", offset, n)
			}
			j.settled[n] = true
		}
	}
	for i := range j.fx.Transitions {
		j.real[place{offset, i}] = transitionText(device, &j.fx.Transitions[i])
	}
}

// gap sees a gap declared: what was acknowledged before it was due may not be given up on (P2).
func (j *judge) gap(device string, tw *twin.Twin, g *twin.Gap, offset int64) {
	j.gaps++
	if g.Forced {
		j.forced++
		return
	}
	due := tw.DueWithin(twin.SettledLimits())
	for seq := uint64(1); seq < g.UpTo; seq++ {
		n := number{device, g.Boot, seq}
		if a, ok := j.acked[n]; ok && a.at < due && !j.taken[n] {
			j.failLocked("offset %d: a gap gives up on %v, which was acknowledged by %s %v before it was due", offset, n, a.by, time.Duration(due-a.at))
		}
	}
}

// released sees a sample acknowledged by a node: it must stand in the log by then, in a record that counts.
// Or among the dead letters, where its twin is quarantined.
func (j *judge) released(n number, by, payload string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if tw := j.twins[n.device]; tw != nil && tw.Quarantined() && j.letters[payload] {
		return
	}
	if !j.taken[n] {
		j.failLocked("%v was acknowledged by %s and stands in no record that counts", n, by)
	}
	j.acked[n] = ack{by, time.Now().UnixNano()}
}

// stored sees a sample acknowledged because ingest has it.
func (j *judge) stored(n number) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.acked[n]; !ok {
		j.acked[n] = ack{"ingest", time.Now().UnixNano()}
	}
}

func (j *judge) letter(payload string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.letters[payload] = true
}

func (j *judge) refused(payload, by string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.letters[payload] {
		j.failLocked("a message that nobody can read was acknowledged by %s and is no dead letter", by)
	}
}

func transitionText(device string, a *alert.Alert) string {
	return fmt.Sprintf("%s %s %x %v %v %d", device, a.Rule, a.ID, a.State, a.Severity, a.UpdateTime)
}

// published sees a transition in doppel.alerts: it must be one of the log's.
func (j *judge) published(t *host.Transition) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := place{t.Offset, t.Index}
	if got, want := transitionText(t.Device, &t.Alert), j.real[p]; got != want {
		j.failLocked("offset %d: published %q, the log has %q", t.Offset, got, want)
	}
	j.seen[p] = true
}

// final holds the fold against what the devices know, and what must have been let out by now.
func (j *judge) final(devices []*deviceLoad, late bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, d := range devices {
		tw := j.twins[d.id]
		switch {
		case tw == nil:
			j.failLocked("device %s has no twin", d.id)
		case tw.Quarantined(): // what came later is among the dead letters
		case d.numbered && tw.SetDigest() != d.sum.Set:
			j.failLocked("device %s: set digest %x, want %x: %d applied and %d late of %d", d.id, tw.SetDigest(), d.sum.Set,
				tw.Counters().Applied, tw.Counters().Late, d.sum.Samples)
		case d.numbered && !late && tw.Digest() != d.sum.Digest:
			j.failLocked("device %s: digest %x, want %x: not applied in order", d.id, tw.Digest(), d.sum.Digest)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(j.real), func(a, b place) int { return int(a.offset - b.offset) }) {
		if !j.seen[p] {
			j.failLocked("offset %d: transition %q was never published", p.offset, j.real[p])
		}
	}
}

// live holds the state a node serves against the fold.
func (j *judge) live(node string, served map[string]twinState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	want := map[string]twinState{}
	for id, tw := range j.twins {
		c := tw.Counters()
		want[id] = twinState{tw.Digest(), tw.SetDigest(), tw.Version(), tw.Boot(), tw.Seq(), c.Applied, c.Late, c.Held, c.Missing, c.Gaps}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if served[id] != want[id] {
			j.failLocked("node %s serves %s as %+v, the fold of the log is %+v", node, id, served[id], want[id])
		}
	}
	if len(served) != len(want) {
		j.failLocked("node %s serves %d twins, the fold has %d", node, len(served), len(want))
	}
}

// looked holds the state hash that a node named for the log below next against the fold there (invariant
// c): a stale node may be behind, never beside.
func (j *judge) looked(node string, next, hash uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if next == 0 || next > uint64(len(j.hashes)) {
		j.failLocked("node %s shows the state behind offset %d of a log of %d", node, next, len(j.hashes))
	} else if want := j.hashes[next-1]; hash != want {
		j.failLocked("node %s has state hash %x below offset %d, the fold of the log %x", node, hash, next, want)
	}
}

// twinState is what of a twin is compared.
type twinState struct{ digest, set, version, boot, seq, applied, late, held, missing, gaps uint64 }

// rows sees what is offered to the time series store: samples that took effect, below the cursor it names (E3).
func (j *judge) rows(node string, r *host.Rows) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range r.Samples {
		s := &r.Samples[i]
		if n := (number{s.Device, s.Boot, s.Seq}); s.Boot > 0 && !j.settled[n] {
			j.failLocked("node %s offers a row of %v, which took no effect in the log", node, n)
		}
	}
	if r.To.Next > int64(len(j.hashes)) || r.From.Next > r.To.Next {
		j.failLocked("node %s offers rows of offsets %d to %d of a log of %d", node, r.From.Next, r.To.Next, len(j.hashes))
	}
}

// gaveUp says whether a gap was forced, as after a minute with ingest not handled: samples may be late then.
func (j *judge) gaveUp() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.forced > 0
}

// handled says whether everything of ingest below end was handled.
func (j *judge) handled(end uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.src.Offset >= end
}
