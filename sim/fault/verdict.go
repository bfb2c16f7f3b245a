package fault

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// verdict collects what is wrong. The functions that add to it are pure, so that it can be shown that each
// of them can fail.
type verdict struct {
	findings []string
}

// shown is how many findings of a kind are worth naming.
const shown = 5

func (v *verdict) add(format string, args ...any) {
	v.findings = append(v.findings, fmt.Sprintf(format, args...))
}

// some adds the first of many findings, and how many there are.
func (v *verdict) some(what string, all []string) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	v.add("%s: %d, as %s", what, len(all), strings.Join(all[:min(len(all), shown)], "; "))
}

// replay: every record says what its replay gives.
func (v *verdict) replay(folds map[int32]*fold) {
	var all []string
	for _, f := range folds {
		all = append(all, f.differences...)
	}
	v.some("records that say something else than their replay", all)
}

// hashes: the live state of a partition is that of its fold.
func (v *verdict) hashes(folds map[int32]*fold, parts []*doppelv1.PartitionAudit) {
	if len(parts) != len(folds) {
		v.add("state: the node has %d partitions, the log %d", len(parts), len(folds))
	}
	for _, p := range parts {
		f := folds[p.GetId()]
		if f == nil {
			v.add("state: p%d is not in the log", p.GetId())
			continue
		}
		if got, want := p.GetStateHash(), f.hash(); got != want || p.GetTwins() != uint64(len(f.twins)) {
			v.add("state: p%d at offset %d has %d twins with hash %016x, an uninterrupted run %d with %016x",
				p.GetId(), p.GetNextOffset(), p.GetTwins(), got, len(f.twins), want)
		}
	}
}

// twins: every twin shows what an uninterrupted run would show, but for the duplicates, which are lost in a
// crash by design.
func (v *verdict) twins(folds map[int32]*fold, shows map[string]*doppelv1.Twin) {
	var all []string
	expected := 0
	for _, f := range folds {
		expected += len(f.twins)
		for id, t := range f.twins {
			got, want := bare(shows[id]), bare(codec.Twin(t))
			switch {
			case shows[id] == nil:
				all = append(all, id+" is missing")
			case !proto.Equal(got, want):
				all = append(all, fmt.Sprintf("%s: %s", id, firstDifference(got, want)))
			}
		}
	}
	v.some("twins unlike those of an uninterrupted run", all)
	if len(shows) > expected {
		v.add("state: %d twins, %d in the log", len(shows), expected)
	}
}

// bare is a twin without what is not its own, and without its duplicates.
func bare(t *doppelv1.Twin) *doppelv1.Twin {
	if t == nil {
		return &doppelv1.Twin{}
	}
	b := proto.CloneOf(t)
	b.Owner, b.Epoch, b.Etag = "", 0, ""
	if b.GetCounters() != nil {
		b.Counters.Duplicate = 0
	}
	return b
}

// firstDifference names the first line in which two twins differ.
func firstDifference(got, want proto.Message) string {
	text := prototext.MarshalOptions{Multiline: true}
	a, b := strings.Split(text.Format(got), "\n"), strings.Split(text.Format(want), "\n")
	for i := range min(len(a), len(b)) {
		// The spaces between name and value vary on purpose.
		if x, y := strings.Join(strings.Fields(a[i]), " "), strings.Join(strings.Fields(b[i]), " "); x != y {
			return fmt.Sprintf("%s, want %s", x, y)
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

// published is what stands in doppel.alerts: how often each position, and what it says.
type published map[string][]*doppelv1.Alert

// readAlerts sorts the records of doppel.alerts by their position.
func readAlerts(all records) (published, error) {
	found := make(published)
	for _, recs := range all {
		for _, r := range recs {
			var a doppelv1.Alert
			if err := proto.Unmarshal(r.Value, &a); err != nil {
				return nil, fmt.Errorf("alerts: p%d offset %d: %w", r.Partition, r.Offset, err)
			}
			pos := headerOf(r, "pos")
			found[pos] = append(found[pos], &a)
		}
	}
	return found, nil
}

func headerOf(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// complete tells whether every transition of the folds was published.
func (found published) complete(folds map[int32]*fold) bool {
	for _, f := range folds {
		for pos := range f.transitions {
			if len(found[pos.String()]) == 0 {
				return false
			}
		}
	}
	return true
}

// alerts: each transition stands in doppel.alerts at least once, under its position, as the fold gave it;
// nothing else stands there. What lies behind a fold's end is not judged.
func (v *verdict) alerts(folds map[int32]*fold, found published) {
	var missing, wrong, invented []string
	known := make(map[string]bool)
	for _, f := range folds {
		for pos, a := range f.transitions {
			known[pos.String()] = true
			if len(found[pos.String()]) == 0 {
				missing = append(missing, fmt.Sprintf("%s %s %s", pos, a.Rule, a.State))
			}
			for _, got := range found[pos.String()] {
				if want := codec.AlertID(a.ID); got.GetId() != want || !strings.EqualFold(got.GetState().String(), a.State.String()) {
					wrong = append(wrong, fmt.Sprintf("%s says %s %s, want %s %s", pos, got.GetId(), got.GetState(), want, a.State))
				}
			}
		}
	}
	for _, pos := range slices.Sorted(maps.Keys(found)) {
		var p position
		if _, err := fmt.Sscanf(pos, "%d:%d:%d", &p.partition, &p.offset, &p.index); err != nil {
			invented = append(invented, fmt.Sprintf("%q", pos))
			continue
		}
		if f := folds[p.partition]; !known[pos] && (f == nil || p.offset < f.valid.Next) {
			invented = append(invented, pos)
		}
	}
	v.some("alert transitions never published", missing)
	v.some("alert transitions published differently", wrong)
	v.some("alert transitions published that never were", invented)
}

// balance: received = applied + late + duplicate + dead-lettered + held + in flight, with nothing in flight
// at rest.
func (v *verdict) balance(m map[string]float64) {
	sum := m["doppel_samples_held"] + m["doppel_samples_in_flight"]
	for _, result := range []string{"applied", "late", "duplicate", "dead_lettered"} {
		sum += m[`doppel_samples_total{result="`+result+`"}`]
	}
	received, there := m["doppel_samples_received_total"]
	if !there || received != sum {
		v.add("accounts: %v samples received, %v accounted for", received, sum)
	}
	if left := m["doppel_samples_in_flight"]; left != 0 {
		v.add("accounts: %v samples in flight at rest", left)
	}
	if held := m["doppel_samples_held"]; held != 0 {
		v.add("accounts: %v samples held at rest", held)
	}
	if n := m["doppel_replay_differences_total"]; n != 0 {
		v.add("the node counts %v records whose replay differs", n)
	}
}
