package fault

import (
	"fmt"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// position is the identity of an effect: where its cause stands in the log.
type position struct {
	partition int32
	offset    int64
	index     int
}

// String is the position as doppel.alerts writes it.
func (p position) String() string { return fmt.Sprintf("%d:%d:%d", p.partition, p.offset, p.index) }

// fold is one partition as an owner that nothing ever happened to would have it: the valid records of the
// changelog from offset 0 (rules R1 to R3 of the protocol), each stepped once.
type fold struct {
	partition   int32
	twins       map[string]*twin.Twin
	transitions map[position]alert.Alert
	stories     map[string][]*doppelv1.Alert // the transitions of a device, in order
	claims      int
	void        int
	differences []string // records whose replay gave something else than they say (R5)

	builtin  *alert.Set
	rules    *alert.Set // in force
	compiler *ruleset.Compiler
	valid    host.Validator
	decoder  codec.EventDecoder
	event    codec.Event
	effects  twin.Effects
}

func newFold(partition int32) (*fold, error) {
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		return nil, fmt.Errorf("fold: %w", err)
	}
	return &fold{
		partition: partition, builtin: rules, rules: rules, compiler: ruleset.NewCompiler(),
		twins: make(map[string]*twin.Twin), transitions: make(map[position]alert.Alert), stories: make(map[string][]*doppelv1.Alert),
	}, nil
}

// take folds the next record.
func (f *fold) take(offset int64, key, value []byte) {
	ev := &f.event
	err := f.decoder.Decode(value, ev)
	switch {
	case !f.valid.Valid(offset, ev, err):
		f.void++
		return
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM:
		f.claims++
		f.rules = f.builtin
		return
	case ev.Kind == doppelv1.EventKind_EVENT_KIND_RULES:
		f.rules = f.compiler.Compile(ev.Rules).Alerts
		return
	case ev.Input.Kind == 0:
		return // an input of the partition, not of a twin
	}
	t := f.twins[string(key)]
	if t == nil {
		t = twin.New(string(key), ev.Now)
		f.twins[t.ID()] = t
	}
	t.AddDuplicates(ev.Duplicates)
	t.Step(ev.Now, &ev.Input, f.rules, &f.effects)
	f.compare(offset, t)
	for i := range f.effects.Transitions {
		if f.effects.Transitions[i].Shadow { // nobody is told
			continue
		}
		f.transitions[position{f.partition, offset, i}] = f.effects.Transitions[i]
		f.stories[t.ID()] = append(f.stories[t.ID()], codec.Alert(t.ID(), &f.effects.Transitions[i]))
	}
}

// compare looks for what the replay gave and the record does not say.
func (f *fold) compare(offset int64, t *twin.Twin) {
	ev := &f.event
	same := t.Digest() == ev.Digest && t.SetDigest() == ev.SetDigest && t.Version() == ev.Version &&
		f.effects.Outcome == ev.Effects.Outcome && len(f.effects.Applied) == len(ev.Effects.Applied) &&
		len(f.effects.Transitions) == len(ev.Effects.Transitions)
	for i := 0; same && i < len(f.effects.Transitions); i++ {
		a, b := &f.effects.Transitions[i], &ev.Effects.Transitions[i]
		same = a.ID == b.ID && a.State == b.State && a.Severity == b.Severity && a.UpdateTime == b.UpdateTime
	}
	if !same {
		f.differences = append(f.differences, fmt.Sprintf("p%d offset %d, %s: replayed version %d digest %016x, recorded %d %016x",
			f.partition, offset, t.ID(), t.Version(), t.Digest(), ev.Version, ev.Digest))
	}
}

// hash is the sum of the hashes of all twins.
func (f *fold) hash() uint64 {
	var sum uint64
	for _, t := range f.twins {
		sum += t.Hash()
	}
	return sum
}

// foldLog folds what was read of doppel.telemetry; of a partition in ends, what lies below its end.
func foldLog(all records, ends map[int32]int64) (map[int32]*fold, error) {
	folds := make(map[int32]*fold, len(all))
	for p, recs := range all {
		f, err := newFold(p)
		if err != nil {
			return nil, err
		}
		end, bounded := ends[p]
		for _, r := range recs {
			if bounded && r.Offset >= end {
				break
			}
			f.take(r.Offset, r.Key, r.Value)
		}
		if bounded && f.valid.Next < end {
			return nil, fmt.Errorf("p%d: the log ends at %d, the node says it stands at %d", p, f.valid.Next, end)
		}
		folds[p] = f
	}
	return folds, nil
}
