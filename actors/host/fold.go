package host

import (
	"fmt"
	"math"
	"strings"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// noEpoch is in force in front of the first Claim met: no record carries it (R4).
const noEpoch = math.MaxUint64

// FromFirstClaim is the cursor of a reader that starts at an offset nothing is known about: nothing
// counts until a Claim is met (R4).
func FromFirstClaim(offset int64) Cursor {
	if offset == 0 {
		return Cursor{}
	}
	return Cursor{Next: offset, Epoch: noEpoch}
}

// Difference is a place where a fold of the log did not give what is recorded there, or what is live.
type Difference struct {
	Device string
	Offset int64 // of the record; -1: it is not about one
	What   string
}

// String names it for people.
func (d *Difference) String() string {
	if d.Offset < 0 {
		return fmt.Sprintf("device %s: %s", d.Device, d.What)
	}
	return fmt.Sprintf("device %s, offset %d: %s", d.Device, d.Offset, d.What)
}

// FoldStats count what a fold met.
type FoldStats struct {
	Records   uint64 // valid, without claims
	Inputs    uint64 // of these, inputs of the folded twins
	Void      uint64 // records that do not count (R3)
	Uncovered uint64 // records of twins whose beginning is no longer in the log
	Refused   uint64 // records of refused samples
	Differs   uint64 // records whose replay gave something else (R5)
}

// Fold folds the changelog of one partition into twins: the Step that made them live, over the same
// inputs, without an owner. It reads nothing and starts nothing; Take must get the records in order
// from where its cursor stands. Not for concurrent use.
//
// A twin begins with its first record (version 1), with an anchor, or with what Begin was given.
type Fold struct {
	// Stats so far; First is the first difference, nil: none.
	Stats FoldStats
	First *Difference

	device string // only this one; empty: all
	whole  bool   // starts with the log
	valid  Validator
	dec    codec.EventDecoder
	event  codec.Event
	base   *alert.Set // in force behind a Claim
	rules  *alert.Set // in force here; nil: not known
	fx     twin.Effects
	twins  map[string]*folded
	node   string // of the Claim in force
	first  int64  // logged time of the first valid record, 0: none yet

	applied func() // told of each record applied: f.event, and what it gave in f.fx; nil: nobody is

	compiler *ruleset.Compiler // nil until it is needed

	// Of one that tries out rules: which devices (nil: all), and what is done instead of going over to the rules
	// of a record (none: those behind a Claim), and of a step.
	only    map[string]bool
	enacted func(encoded []byte)
	stepped func(t *twin.Twin)
}

// folded is a twin in a fold.
type folded struct {
	twin  twin.Twin
	began FoldStart
	given bool  // by Begin, and not met in the log yet
	asof  int64 // offset of the last record included
}

// FoldStart says where the fold of a twin begins.
type FoldStart struct {
	Kind    string // "creation", "anchor", "checkpoint"
	Offset  int64  // of the record; of a checkpoint, the last offset it includes
	Version uint64 // of the twin there
}

// NewFold makes a fold that starts at a cursor. rules are those in force there, and behind every Claim that
// no other rules follow. device: fold only this one; empty: all.
func NewFold(rules *alert.Set, from Cursor, device string) *Fold {
	return &Fold{
		device: device, whole: from.Next == 0, valid: Validator{Cursor: from}, base: rules, rules: rules, twins: make(map[string]*folded),
	}
}

// Begin gives the fold a checkpoint: the state of a device after the record at offset asof. It counts
// from there on, unless the log has an earlier beginning of the twin. Of several the first counts that
// is not older than the fold's start, else the last: from then on nothing of the twin was removed.
func (f *Fold) Begin(device string, asof int64, encoded []byte) error {
	if had := f.twins[device]; had != nil && had.asof >= f.valid.Next-1 {
		return nil
	}
	d := &folded{given: true, asof: asof}
	if err := d.twin.Decode(device, encoded, nil); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	d.began = FoldStart{Kind: "checkpoint", Offset: asof, Version: d.twin.Version()}
	f.twins[device] = d
	return nil
}

// Forget takes back what Begin was given: the device was deleted since.
func (f *Fold) Forget(device string) { delete(f.twins, device) }

// Take folds the next record.
func (f *Fold) Take(r LogRecord) {
	if f.look(r) {
		f.apply(r)
	}
}

// Cursor is where the fold stands.
func (f *Fold) Cursor() Cursor { return f.valid.Cursor }

// Twin is the twin of a device as of the cursor, nil if the fold has none.
func (f *Fold) Twin(device string) *twin.Twin {
	if d := f.find(device); d != nil {
		return &d.twin
	}
	return nil
}

// Each calls fn with every twin as of the cursor, in any order.
func (f *Fold) Each(fn func(*twin.Twin)) {
	for _, d := range f.twins {
		if d.asof < f.valid.Next {
			fn(&d.twin)
		}
	}
}

// Hash is the state hash as of the cursor: the sum mod 2^64 of the hashes of all twins.
func (f *Fold) Hash() (sum uint64) {
	f.Each(func(t *twin.Twin) { sum += t.Hash() })
	return sum
}

// find is the folded twin of a device; one whose checkpoint is ahead of the cursor is not there yet.
func (f *Fold) find(device string) *folded {
	if d := f.twins[device]; d != nil && d.asof < f.valid.Next {
		return d
	}
	return nil
}

// look decodes a record and says whether it is one to apply; f.event then holds it.
func (f *Fold) look(r LogRecord) bool {
	err := f.dec.Decode(r.Value, &f.event)
	ev := &f.event
	switch {
	case !f.valid.Valid(r.Offset, ev, err):
		f.Stats.Void++
		return false
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
		f.node = ev.Claim.Node
		f.enact(nil)
		f.begins(ev.Now)
		return false
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_RULES:
		f.enact(ev.Rules)
	}
	f.begins(ev.Now)
	f.Stats.Records++
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_REFUSED {
		f.Stats.Refused++
	}
	return true
}

// enact goes over to the rules of a record; none: of a Claim.
func (f *Fold) enact(encoded []byte) {
	switch {
	case f.enacted != nil:
		f.enacted(encoded)
		return
	case len(encoded) == 0:
		f.rules = f.base
		return
	}
	if f.compiler == nil {
		f.compiler = ruleset.NewCompiler()
	}
	f.rules = f.compiler.Compile(encoded).Alerts
}

func (f *Fold) begins(now int64) {
	if f.first == 0 {
		f.first = now
	}
}

// apply folds the record in f.event.
func (f *Fold) apply(r LogRecord) {
	ev := &f.event
	if f.device != "" && string(r.Key) != f.device || ev.OfPartition() || f.only != nil && !f.only[string(r.Key)] {
		return
	}
	if f.rules == nil && f.stepped == nil { // what it gave cannot be told
		if d := f.twins[string(r.Key)]; d != nil && d.asof < r.Offset {
			delete(f.twins, string(r.Key))
		}
		f.Stats.Uncovered++
		return
	}
	d := f.begin(r)
	if d == nil {
		f.Stats.Uncovered++
		return
	}
	if r.Offset <= d.asof { // it is in there already
		return
	}
	d.asof = r.Offset
	f.Stats.Inputs++
	if f.stepped != nil {
		f.stepped(&d.twin)
		return
	}
	if what := replay(&d.twin, ev, f.rules, &f.fx); what != "" {
		f.differ(Difference{Device: d.twin.ID(), Offset: r.Offset, What: what})
	}
	if f.applied != nil {
		f.applied()
	}
}

// begin finds the twin that a record is for. Where the fold does not have it yet the record itself may
// be its beginning. nil: nothing is known of the twin.
func (f *Fold) begin(r LogRecord) *folded {
	ev := &f.event
	d := f.twins[string(r.Key)]
	if d != nil && r.Offset > d.asof {
		if !d.given || d.continues(ev) {
			d.given = false
			return d
		}
		d = nil // what lies between was removed
	}
	if d != nil && !d.given {
		return d
	}
	device := strings.Clone(string(r.Key))
	fresh := &folded{asof: r.Offset - 1}
	switch {
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_ANCHOR:
		if err := fresh.twin.Decode(device, ev.Anchor, nil); err != nil {
			f.differ(Difference{Device: device, Offset: r.Offset, What: err.Error()})
			return nil
		}
		fresh.began = FoldStart{Kind: "anchor", Offset: r.Offset, Version: fresh.twin.Version()}
	case f.whole || ev.Version == 1:
		fresh.twin = *twin.New(device, ev.Now)
		fresh.began = FoldStart{Kind: "creation", Offset: r.Offset}
	case d != nil:
		return d // the checkpoint ahead covers this record
	default:
		delete(f.twins, device)
		return nil
	}
	f.twins[device] = fresh
	return fresh
}

// continues says whether a record is the next one behind a checkpoint.
func (d *folded) continues(ev *codec.Event) bool {
	if ev.Kind == doppelv1.EventKind_EVENT_KIND_ANCHOR {
		return ev.Version == d.twin.Version()
	}
	return !ev.Effects.Outcome.Logged() || ev.Version == 0 || ev.Version == d.twin.Version()+1
}

func (f *Fold) differ(d Difference) {
	if f.Stats.Differs++; f.First == nil {
		f.First = &d
	}
}

// replay applies a valid record to its twin and says what the record has otherwise (R5); empty: nothing.
func replay(t *twin.Twin, recorded *codec.Event, rules *alert.Set, fx *twin.Effects) string {
	t.AddDuplicates(recorded.Duplicates)
	t.Step(recorded.Now, &recorded.Input, rules, fx)
	return recordDiffers(t, fx, recorded)
}
